//! Errors of this crate.

use std::path::PathBuf;

use laps_files::IoError;

use crate::runtime::{Provider, RuntimeError};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of recording, exporting and running graphs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model that cannot be recorded, or an input that cannot be read.
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// A vocabulary or an image size.
    #[error(transparent)]
    Data(#[from] laps_data::Error),
    /// The parameters of the alignment.
    #[error(transparent)]
    Align(#[from] laps_align::Error),
    /// A checkpoint or an entry.
    #[error(transparent)]
    Hub(#[from] laps_hub::Error),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Another process is writing the folder.
    #[error(transparent)]
    Files(#[from] laps_files::Error),
    /// An invalid option.
    #[error("invalid {option}\n  expected: {expected}\n  found: {found}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Allowed values.
        expected: String,
        /// Given value.
        found: String,
    },
    /// An execution provider does not support the graphs.
    #[error("the execution provider `{provider}` cannot run these graphs\n  expected: {expected}\n  found: {found}")]
    Provider {
        /// Execution provider.
        provider: Provider,
        /// Graphs that it supports.
        expected: &'static str,
        /// Property of the given graphs.
        found: String,
        /// Suggested fix.
        hint: &'static str,
    },
    /// A graph is too large for one file.
    #[error("graph `{graph}` is too large for an ONNX file\n  expected: at most {largest} bytes\n  found: {bytes}")]
    Large {
        /// Name of the graph.
        graph: &'static str,
        /// Size in bytes.
        bytes: usize,
        /// Largest protobuf message that readers accept.
        largest: usize,
    },
    /// Graphs cannot be written to a folder.
    #[error("cannot write the graphs to `{}`: {reason}", path.display())]
    Folder {
        /// Folder.
        path: PathBuf,
        /// Reason.
        reason: &'static str,
        /// Suggested fix.
        hint: &'static str,
    },
    /// A folder is not a package of graphs, or differs from its manifest.
    #[error("`{}` cannot be used as a folder of graphs\n  expected: {expected}\n  found: {found}", path.display())]
    Package {
        /// The folder or a file in it.
        path: PathBuf,
        /// Expected content.
        expected: String,
        /// Found content.
        found: String,
        /// Suggested fix.
        hint: &'static str,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Error {
    /// An invalid option.
    pub(crate) fn option(option: &'static str, expected: &str, found: &str) -> Self {
        Self::Option { option, expected: expected.to_owned(), found: found.to_owned() }
    }

    /// A file that cannot be read or written.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self::Io(IoError::new(action, path, source.into()))
    }

    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Align(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::Folder { hint, .. } | Self::Package { hint, .. } | Self::Provider { hint, .. } => {
                Some((*hint).to_owned())
            }
            Self::Large { .. } => Some("export it in fp16, which halves the size".to_owned()),
            Self::Option { .. } | Self::Io(_) => None,
        }
    }
}

impl From<laps_data::DataError> for Error {
    fn from(error: laps_data::DataError) -> Self {
        Self::Data(error.into())
    }
}

impl From<laps_hub::checkpoint::CheckpointError> for Error {
    fn from(error: laps_hub::checkpoint::CheckpointError) -> Self {
        Self::Hub(error.into())
    }
}

impl From<laps_hub::registry::RegistryError> for Error {
    fn from(error: laps_hub::registry::RegistryError) -> Self {
        Self::Hub(error.into())
    }
}
