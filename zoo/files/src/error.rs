//! Errors of this crate.

use std::{io, path::PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A file or folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The output is written out of order, which its target does not allow.
    #[error(
        "cannot write `{}`\n  expected: a regular file, because its header is written last\n  \
         found: a pipe, a device or standard output",
        path.display()
    )]
    NotSeekable {
        /// The path as the caller gave it.
        path: PathBuf,
    },
}

/// For callers that report the path themselves.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { source, .. } => source,
            Error::NotSeekable { .. } => Self::new(io::ErrorKind::NotSeekable, error),
        }
    }
}
