//! Errors of this crate.

use std::{io, path::PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The operating system refused an operation on a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct IoError {
    /// The failed action: `read`, `write`, ...
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The operating system's error.
    pub source: io::Error,
}

impl IoError {
    /// The error `source` of `action` on `path`.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { action, path: path.into(), source }
    }
}

/// A file or folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`IoError`].
    #[error(transparent)]
    Io(#[from] IoError),
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
    /// Another process is writing the same output.
    #[error("another process is writing `{}`\n  expected: no other writer\n  found: {}", path.display(), holder(*pid))]
    Held {
        /// The output.
        path: PathBuf,
        /// Id of the process that holds its lock, if that is known.
        pid: Option<u32>,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "a process that holds its lock".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => Some("wait for that process, or write to another path".to_owned()),
            Self::Io(_) | Self::NotSeekable { .. } => None,
        }
    }
}

/// For callers that report the path themselves.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(IoError { source, .. }) => source,
            Error::NotSeekable { .. } => Self::new(io::ErrorKind::NotSeekable, error),
            Error::Held { .. } => Self::new(io::ErrorKind::ResourceBusy, error),
        }
    }
}
