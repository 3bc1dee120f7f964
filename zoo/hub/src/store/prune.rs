//! Deletes files that the cache does not need.

use std::path::{Path, PathBuf};

use super::{FileStore, FileStoreError};
use laps_files::{FileLock, with_suffix};

/// A deleted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Why it was not needed.
    pub reason: &'static str,
}

/// Suffixes of the files that interrupted and rejected downloads leave.
const LEFTOVERS: [(&str, &str); 3] =
    [(".part", "interrupted download"), (".part.json", "interrupted download"), (".rejected", "rejected download")];

/// Deletes interrupted and rejected downloads, and original checkpoints that were converted to safetensors. Skips
/// downloads that are active in another process.
///
/// # Errors
/// [`FileStoreError::Io`].
pub fn prune(store: &FileStore) -> Result<Vec<PrunedFile>, FileStoreError> {
    let mut pruned = Vec::new();
    for kind in ["checkpoints", "backbones", "judgements"] {
        for folder in children(&store.root.join(kind))? {
            for path in children(&folder)? {
                if let Some((target, reason)) = unneeded(&path) {
                    remove(&path, &target, reason, &mut pruned)?;
                }
            }
        }
    }
    Ok(pruned)
}

/// The target of the file at `path`, and why the file is not needed.
fn unneeded(path: &Path) -> Option<(PathBuf, &'static str)> {
    let name = path.file_name()?.to_str()?;
    for (suffix, reason) in LEFTOVERS {
        if let Some(stem) = name.strip_suffix(suffix) {
            return Some((path.with_file_name(stem), reason));
        }
    }
    let converted = path.with_extension("safetensors");
    (name.ends_with(".pth") && converted.is_file()).then(|| (path.to_owned(), "converted to safetensors"))
}

fn remove(
    path: &Path,
    target: &Path,
    reason: &'static str,
    pruned: &mut Vec<PrunedFile>,
) -> Result<(), FileStoreError> {
    let failed = |source| FileStoreError::io("remove", path, source);
    let lock_path = with_suffix(target, ".lock");
    // A process that was killed leaves its lock file, but not the lock.
    let is_locked =
        lock_path.exists() && fs_err::File::open(&lock_path).is_ok_and(|file| file.file().try_lock().is_err());
    if is_locked {
        return Ok(());
    }
    let _lock = FileLock::acquire(target, || {}).map_err(failed)?;
    let Ok(metadata) = fs_err::metadata(path) else { return Ok(()) };
    fs_err::remove_file(path).map_err(failed)?;
    pruned.push(PrunedFile { path: path.to_owned(), bytes: metadata.len(), reason });
    Ok(())
}

/// The sorted paths in `folder`; empty if it does not exist.
fn children(folder: &Path) -> Result<Vec<PathBuf>, FileStoreError> {
    let failed = |source| FileStoreError::io("read", folder, source);
    match fs_err::read_dir(folder) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            paths.sort();
            Ok(paths)
        }
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(failed(error)),
    }
}
