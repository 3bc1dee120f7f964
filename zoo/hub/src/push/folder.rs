//! The files of a folder.

use std::path::{Path, PathBuf};

use laps_files::{ExpectedDigest, digest_file, safe_relative_path};

use super::PushError;

/// A file to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushFile {
    /// Path in the repository, with `/`.
    pub name: String,
    /// Path on this machine.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, the id of a large object.
    pub sha256: String,
    /// Git's blob id, the id of any other file.
    pub git_blob: String,
}

/// Lists and hashes the files of `folder`, sorted by name.
///
/// # Errors
/// Files that cannot be read, links, devices, and names that a repository must not have.
pub fn folder_files(folder: &Path) -> Result<Vec<PushFile>, PushError> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let failed = |source| PushError::Read { path: folder.clone(), source };
        for entry in fs_err::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(failed)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if safe_relative_path(&name).is_none() || !(kind.is_file() || kind.is_dir()) {
                return Err(PushError::Irregular { path });
            }
            match kind.is_dir() {
                true => folders.push((path, format!("{name}/"))),
                false => files.push(PushFile::new(name, path)?),
            }
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

impl PushFile {
    fn new(name: String, path: PathBuf) -> Result<Self, PushError> {
        let wanted = ExpectedDigest { git_blob: Some(String::new()), ..ExpectedDigest::default() };
        let digest = digest_file(&path, &wanted).map_err(|source| PushError::Read { path: path.clone(), source })?;
        let git_blob = digest.git_blob.unwrap_or_default();
        Ok(Self { name, path, bytes: digest.bytes, sha256: digest.sha256, git_blob })
    }
}
