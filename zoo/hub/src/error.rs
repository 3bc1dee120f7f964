//! The error of this crate.

use crate::{checkpoint::CheckpointError, fetch::FetchError, registry::RegistryError, store::StoreError};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of any module of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`CheckpointError`].
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// See [`RegistryError`].
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`FetchError`].
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl Error {
    /// What the user can do about it, if known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
        }
    }
}

/// A checkpoint is a source of weights for models and for the exact similarity engine.
impl From<CheckpointError> for laps_model::Error {
    fn from(error: CheckpointError) -> Self {
        Self::weights(error)
    }
}

impl From<CheckpointError> for laps_align::Error {
    fn from(error: CheckpointError) -> Self {
        laps_model::Error::weights(error).into()
    }
}
