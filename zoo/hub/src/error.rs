//! The error of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`crate::checkpoint::CheckpointError`].
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// See [`crate::registry::RegistryError`].
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    /// See [`crate::store::StoreError`].
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// See [`crate::fetch::FetchError`].
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
    /// See [`laps_model::Error`].
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// See [`laps_data::Error`].
    #[error(transparent)]
    Data(#[from] laps_data::Error),
    /// See [`laps_files::Error`].
    #[error(transparent)]
    Files(#[from] laps_files::Error),
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: std::path::PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Files(_) => None,
            Self::Io { .. } => None,
        }
    }
}

impl From<laps_data::DataError> for Error {
    fn from(error: laps_data::DataError) -> Self {
        Self::Data(error.into())
    }
}

/// A checkpoint is a source of weights for models and for the exact engine.
impl From<crate::checkpoint::CheckpointError> for laps_model::Error {
    fn from(error: crate::checkpoint::CheckpointError) -> Self {
        Self::weights(error)
    }
}

impl From<crate::checkpoint::CheckpointError> for laps_align::Error {
    fn from(error: crate::checkpoint::CheckpointError) -> Self {
        laps_model::Error::weights(error).into()
    }
}
