//! Hashes and checks the files of the cache again.

use std::path::PathBuf;

use super::{FileStore, FileStoreError, Pins, check_checkpoint};
use crate::registry::{self, Entry};
use laps_files::{ExpectedDigest, digest_file, safe_relative_path};

/// The result for one pinned file.
#[derive(Debug)]
pub struct FileCheck {
    /// Key of the file.
    pub key: String,
    /// Where it is, or would be.
    pub path: PathBuf,
    /// The outcome.
    pub outcome: FileCheckOutcome,
}

/// The outcome of checking a file.
#[derive(Debug)]
pub enum FileCheckOutcome {
    /// The file has the pinned hash.
    Good {
        /// SHA-256.
        sha256: String,
        /// Whether the file is a checkpoint that was checked against its entry.
        checked: bool,
    },
    /// The file does not exist.
    Absent,
    /// The file has another hash, or does not fit its entry.
    Bad(FileStoreError),
}

/// Folders of the cache whose files are pinned by their path.
const PINNED_FOLDERS: [&str; 3] = ["checkpoints/", "backbones/", "judgements/"];

/// Hashes every pinned file of the cache whose key starts with one of `prefixes` (all files if None), and checks
/// checkpoints against their entries. Does not use the network and changes nothing.
///
/// # Errors
/// [`FileStoreError::Pins`] for an invalid lock file. A wrong file is an outcome, not an error.
pub fn verify(store: &FileStore, prefixes: Option<&[String]>) -> Result<Vec<FileCheck>, FileStoreError> {
    let pins = Pins::open(&store.pins)?;
    let is_selected = |key: &str| match prefixes {
        Some(prefixes) => prefixes.iter().any(|prefix| key.starts_with(prefix.as_str())),
        None => PINNED_FOLDERS.iter().any(|folder| key.starts_with(folder)),
    };
    let mut checks = Vec::new();
    for (key, pin) in pins.iter().filter(|(key, _)| is_selected(key)) {
        let Some(relative) = safe_relative_path(key) else { continue };
        let path = store.root.join(relative);
        let outcome = if path.is_file() {
            let digest = digest_file(&path, &ExpectedDigest::default())
                .map_err(|source| FileStoreError::io("read", &path, source));
            let same_hash = digest.and_then(|digest| {
                pin.expected().check(&digest).map_err(|mismatch| FileStoreError::Mismatch {
                    key: key.to_owned(),
                    mismatch,
                    pins: Some(store.pins.clone()),
                })
            });
            let entry = entry_of(key)?;
            let checked = same_hash.and_then(|()| match &entry {
                Some(entry) => check_checkpoint(&path, entry).map(|()| true),
                None => Ok(false),
            });
            match checked {
                Ok(checked) => FileCheckOutcome::Good { sha256: pin.sha256.clone(), checked },
                Err(error) => FileCheckOutcome::Bad(error),
            }
        } else {
            FileCheckOutcome::Absent
        };
        checks.push(FileCheck { key: key.to_owned(), path, outcome });
    }
    Ok(checks)
}

/// The built-in entry of a checkpoint in the cache.
fn entry_of(key: &str) -> Result<Option<Entry>, FileStoreError> {
    let name = key.strip_prefix("checkpoints/").and_then(|rest| rest.split('/').next());
    Ok(name.filter(|name| registry::names().contains(name)).map(registry::find).transpose()?)
}
