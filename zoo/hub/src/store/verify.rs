//! What is in the cache, hashed and checked again.

use std::path::PathBuf;

use super::{Pins, Store, StoreError, check_checkpoint};
use crate::registry::{self, Entry};
use laps_files::{Expected, digest_file, inside};

/// What was found of one pinned file.
#[derive(Debug)]
pub struct Verdict {
    /// The file, by its key.
    pub key: String,
    /// Where it lies, or would.
    pub path: PathBuf,
    /// What it turned out to be.
    pub outcome: Outcome,
}

/// What a file turned out to be.
#[derive(Debug)]
pub enum Outcome {
    /// As it was pinned; `checked` if it was held against its entry too.
    Good {
        /// SHA-256.
        sha256: String,
        /// Whether its tensors were checked.
        checked: bool,
    },
    /// It is not there.
    Absent,
    /// It is another file, or can not be used.
    Bad(crate::Error),
}

/// Folders of the cache whose files are pinned under their path.
const KEPT: [&str; 2] = ["checkpoints/", "backbones/"];

/// Hashes each pinned file of the cache whose key begins with one of `prefixes`, or every one, and holds checkpoints
/// against their entries. Touches no network and changes nothing.
///
/// # Errors
/// [`StoreError::Pins`] for pins that can not be read; what is wrong with a file is its verdict.
pub fn verify(store: &Store, prefixes: Option<&[String]>) -> Result<Vec<Verdict>, crate::Error> {
    let pins = Pins::open(&store.pins)?;
    let wanted = |key: &str| match prefixes {
        Some(prefixes) => prefixes.iter().any(|prefix| key.starts_with(prefix.as_str())),
        None => KEPT.iter().any(|folder| key.starts_with(folder)),
    };
    let mut verdicts = Vec::new();
    for (key, pin) in pins.iter().filter(|(key, _)| wanted(key)) {
        let Some(inner) = inside(key) else { continue };
        let path = store.root.join(inner);
        let outcome = if path.is_file() {
            let found =
                digest_file(&path, &Expected::default()).map_err(|source| StoreError::io("read", &path, source));
            let same = found.and_then(|found| {
                pin.expected().check(&found).map_err(|mismatch| StoreError::Mismatch {
                    key: key.to_owned(),
                    mismatch,
                    pins: Some(store.pins.clone()),
                })
            });
            let entry = entry_of(key)?;
            let checked = same.map_err(crate::Error::from).and_then(|()| match &entry {
                Some(entry) => check_checkpoint(&path, entry).map(|()| true),
                None => Ok(false),
            });
            match checked {
                Ok(checked) => Outcome::Good { sha256: pin.sha256.clone(), checked },
                Err(error) => Outcome::Bad(error),
            }
        } else {
            Outcome::Absent
        };
        verdicts.push(Verdict { key: key.to_owned(), path, outcome });
    }
    Ok(verdicts)
}

/// The entry that a checkpoint of the cache belongs to.
fn entry_of(key: &str) -> Result<Option<Entry>, crate::Error> {
    let name = key.strip_prefix("checkpoints/").and_then(|rest| rest.split('/').next());
    Ok(name.filter(|name| registry::names().contains(name)).map(registry::find).transpose()?)
}
