//! What can go wrong with kept files.

use std::{io, path::PathBuf};

use laps_files::Mismatch;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("can not {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The file of pins can not be used.
    #[error("`{}` can not be used\n  expected: what laps-zoo wrote there\n  found: {reason}", path.display())]
    Pins {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two fetches gave two files.
    #[error("`{key}` is pinned as another file\n  expected: sha256 {expected}\n  found: sha256 {found}")]
    PinConflict {
        /// The file, by its key.
        key: String,
        /// The file of pins.
        pins: PathBuf,
        /// The hash of the pin.
        expected: String,
        /// The hash of the file.
        found: String,
    },
    /// A file is not what it has to be.
    #[error("`{key}` is another file than expected\n  expected: {} {}\n  found: {} {}", .mismatch.kind, .mismatch.expected, .mismatch.kind, .mismatch.found)]
    Mismatch {
        /// The file, by its key.
        key: String,
        /// What differs.
        mismatch: Mismatch,
        /// The file of pins, where it is a pin that says so.
        pins: Option<PathBuf>,
    },
    /// Nothing of that name can be fetched.
    #[error("there is nothing to fetch under the name `{name}`\n  expected: {}\n  found: `{name}`", super::list(known))]
    Unknown {
        /// As the user named it.
        name: String,
        /// What can be fetched.
        known: Vec<String>,
    },
    /// An entry without a published checkpoint.
    #[error("entry `{name}` has no published checkpoint")]
    Unpublished {
        /// The entry.
        name: String,
    },
    /// The cache has no place.
    #[error(
        "there is no folder for the cache\n  expected: `LAPS_ZOO_CACHE`, `XDG_CACHE_HOME` or `HOME`\n  found: none of them is set"
    )]
    NoCache,
    /// An archive that means harm or is damaged.
    #[error("`{}` can not be unpacked\n  expected: {expected}\n  found: {found}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What it has to hold.
        expected: String,
        /// What it holds.
        found: String,
    },
}

impl StoreError {
    /// An error of the operating system.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Pins { .. } => "move the file away; what is fetched then is pinned anew".to_owned(),
            Self::PinConflict { key, pins, .. } | Self::Mismatch { key, pins: Some(pins), .. } => format!(
                "the file was replaced at its source, or damaged; to accept it, remove `{key}` from `{}`",
                pins.display()
            ),
            Self::Mismatch { pins: None, .. } => {
                "the file was damaged, or replaced at its source: fetch it again, and do not use it as it is".to_owned()
            }
            Self::Unknown { .. } => "`laps-zoo list` shows the entries".to_owned(),
            Self::Unpublished { .. } => "only entries with a published checkpoint can be fetched".to_owned(),
            Self::Archive { .. } => "fetch the archive again; nothing outside its folder was written".to_owned(),
            Self::NoCache => "set `LAPS_ZOO_CACHE` to a folder".to_owned(),
            Self::Io { .. } => return None,
        })
    }
}
