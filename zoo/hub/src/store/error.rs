//! Errors of the cache.

use std::{io, path::PathBuf};

use crate::{checkpoint::CheckpointError, registry::RegistryError};
use laps_files::{IoError, Mismatch};

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum FileStoreError {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The lock file is invalid.
    #[error("invalid lock file `{}`\n  expected: a lock file of laps-zoo\n  found: {reason}", path.display())]
    Pins {
        /// The lock file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// A file is pinned with another hash.
    #[error("`{key}` is pinned with another hash\n  expected: sha256 {expected}\n  found: sha256 {found}")]
    PinConflict {
        /// Key of the file.
        key: String,
        /// The lock file.
        pins: PathBuf,
        /// SHA-256 of the pin.
        expected: String,
        /// SHA-256 of the file.
        found: String,
    },
    /// The hash or size of a file is wrong.
    #[error("`{key}` is not the expected file\n  expected: {} {}\n  found: {} {}", .mismatch.kind, .mismatch.expected, .mismatch.kind, .mismatch.found)]
    Mismatch {
        /// Key of the file.
        key: String,
        /// The difference.
        mismatch: Mismatch,
        /// The lock file, if the expected value is a pin.
        pins: Option<PathBuf>,
    },
    /// No checkpoint or encoder of this name can be fetched.
    #[error("nothing to fetch under the name `{name}`\n  expected: {}\n  found: `{name}`", list(known))]
    UnknownName {
        /// The name.
        name: String,
        /// The names that can be fetched.
        known: Vec<String>,
    },
    /// The entry has no published checkpoint.
    #[error("entry `{name}` has no published checkpoint")]
    Unpublished {
        /// The entry.
        name: String,
    },
    /// The environment names no cache folder.
    #[error(
        "no cache folder\n  expected: `LAPS_ZOO_CACHE`, `XDG_CACHE_HOME` or `HOME` in the environment\n  found: none of them"
    )]
    NoCache,
    /// An archive is damaged or malicious.
    #[error("cannot unpack `{}`\n  expected: {expected}\n  found: {found}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Contents of a valid archive.
        expected: String,
        /// Contents of the archive.
        found: String,
    },
    /// See [`CheckpointError`].
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// See [`RegistryError`].
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The model of an entry is invalid.
    #[error(transparent)]
    Model(#[from] laps_model::Error),
}

/// Minimum similarity of a name that is suggested for a misspelled one.
const MIN_SIMILARITY: f64 = 0.5;

impl FileStoreError {
    /// An error of the operating system.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io(IoError::new(action, path, source))
    }

    /// The error for a name that is not one of those that can be fetched.
    pub fn unknown_name(name: &str, known: Vec<String>) -> Self {
        Self::UnknownName { name: name.to_owned(), known }
    }

    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Pins { .. } => "rename the lock file; fetched files are then pinned again".to_owned(),
            Self::PinConflict { key, pins, .. } | Self::Mismatch { key, pins: Some(pins), .. } => format!(
                "the file was damaged, or replaced at its source; to accept it, remove `{key}` from `{}`",
                pins.display()
            ),
            Self::Mismatch { pins: None, .. } => {
                "the file was damaged, or replaced at its source: do not use it, and fetch it again".to_owned()
            }
            Self::UnknownName { name, known } => match nearest(name, known) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "`laps-zoo list` shows the entries".to_owned(),
            },
            Self::Unpublished { .. } => "only entries with a published checkpoint can be fetched".to_owned(),
            Self::Archive { .. } => "fetch the archive again; nothing was written outside its folder".to_owned(),
            Self::NoCache => "set `LAPS_ZOO_CACHE` to a folder".to_owned(),
            Self::Checkpoint(error) => return error.hint(),
            Self::Registry(error) => return error.hint(),
            Self::Model(error) => return error.hint(),
            Self::Io(_) => return None,
        })
    }
}

/// The most similar of `known` to `name`.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let similarity = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let candidates = known.iter().map(|known| (similarity(known), known.as_str()));
    let (similarity, known) = candidates.max_by(|(left, _), (right, _)| left.total_cmp(right))?;
    (similarity >= MIN_SIMILARITY).then_some(known)
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
