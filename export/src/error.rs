//! The error of this crate.

use std::path::PathBuf;

use crate::runtime::{Provider, RuntimeError};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model that can not be recorded, or an input that can not be read.
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// A caption set or a vocabulary.
    #[error(transparent)]
    Data(#[from] laps_data::Error),
    /// The exact engine.
    #[error(transparent)]
    Align(#[from] laps_align::Error),
    /// A checkpoint or an entry.
    #[error(transparent)]
    Hub(#[from] laps_hub::Error),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An option that can not be used.
    #[error("`{option}` can not be used\n  expected: {expected}\n  found: {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Graphs that are not for the provider that is to run them.
    #[error("the execution provider `{provider}` can not run these graphs\n  expected: {expected}\n  found: {found}")]
    Provider {
        /// The provider.
        provider: Provider,
        /// What it takes.
        expected: &'static str,
        /// What they are.
        found: String,
        /// What mends it.
        hint: &'static str,
    },
    /// A graph that does not fit into one file.
    #[error("graph `{graph}` does not fit into an ONNX file\n  expected: at most {largest} bytes\n  found: {bytes}")]
    Large {
        /// The graph.
        graph: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The most that readers of protobuf take.
        largest: usize,
    },
    /// A folder that graphs can not be written to.
    #[error("can not write the graphs to `{}`: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
        /// What mends it.
        hint: &'static str,
    },
    /// A folder that holds no graphs, or others than its manifest says.
    #[error("`{}` can not be used as a folder of graphs\n  expected: {expected}\n  found: {found}", path.display())]
    Package {
        /// The folder or the file in it.
        path: PathBuf,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
        /// What mends it.
        hint: &'static str,
    },
    /// A file could not be read or written.
    #[error("can not {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// An option that can not be used.
    pub(crate) fn option(option: &'static str, expected: &str, found: &str) -> Self {
        Self::Option { option, expected: expected.to_owned(), found: found.to_owned() }
    }

    /// A file that could not be read or written.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Align(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Folder { hint, .. } | Self::Package { hint, .. } | Self::Provider { hint, .. } => {
                Some((*hint).to_owned())
            }
            Self::Large { .. } => Some("`--precision fp16` halves it".to_owned()),
            Self::Option { .. } | Self::Io { .. } => None,
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
