//! The error of this crate.

use std::path::PathBuf;

use crate::{
    checkpoint::CheckpointError,
    data::{DataError, scenes::SceneError},
    registry::RegistryError,
    retrieval::RetrievalError,
    search::SearchError,
    store::StoreError,
    train::TrainError,
};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation was given shapes or values that it can not work on.
    #[error("`{operation}` can not be computed\n  expected: {expected}\n  found: {found}")]
    Operation {
        /// The operation, as the tensor trait names it.
        operation: &'static str,
        /// What the operation takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// An engine that is no part of this crate failed.
    #[error("the engine `{engine}` failed")]
    Engine {
        /// As the user names it.
        engine: &'static str,
        /// What it says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A module of a model can not be recorded.
    #[error("module `{name}` can not be wired")]
    Module {
        /// Full name, as checkpoints have it.
        name: String,
        /// What went wrong in it.
        #[source]
        source: Box<Error>,
    },
    /// A parameter was asked for that can not be had.
    #[error("parameter `{name}` can not be loaded\n  expected: {expected}\n  found: {found}")]
    Parameter {
        /// Full name, as in the checkpoint.
        name: String,
        /// What the model needs.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A model configuration that describes no model.
    #[error("`{key}` of the model can not be used\n  expected: {expected}\n  found: {found}")]
    Config {
        /// The key in the entry file.
        key: String,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A device that was asked for and can not be used.
    #[error("device `{device}` can not be used: {reason}")]
    Device {
        /// As the user named it.
        device: String,
        /// Why not.
        reason: String,
        /// What mends it.
        hint: String,
    },
    /// A file could not be read or written.
    #[error("can not {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// libtorch refused an operation.
    #[cfg(feature = "torch")]
    #[error("libtorch refused an operation")]
    Torch(#[source] Box<tch::TchError>),
    /// See [`CheckpointError`].
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// See [`DataError`].
    #[error(transparent)]
    Data(#[from] DataError),
    /// See [`RegistryError`].
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// See [`RetrievalError`].
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// See [`SceneError`].
    #[error(transparent)]
    Scenes(#[from] SceneError),
    /// See [`SearchError`].
    #[error(transparent)]
    Search(#[from] SearchError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`crate::fetch::FetchError`].
    #[cfg(feature = "fetch")]
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
    /// See [`TrainError`].
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl Error {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Device { hint, .. } => Some(hint.clone()),
            Self::Checkpoint(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Retrieval(error) => error.hint(),
            Self::Scenes(error) => error.hint(),
            Self::Search(error) => error.hint(),
            Self::Store(error) => error.hint(),
            #[cfg(feature = "fetch")]
            Self::Fetch(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Module { source, .. } => source.hint(),
            _ => None,
        }
    }
}
