//! The error of this crate.

use crate::{
    checkpoint::CheckpointError, fetch::FetchError, push::PushError, registry::RegistryError, store::FileStoreError,
};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of any module of this crate. They are boxed because some of them are large.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`CheckpointError`].
    #[error(transparent)]
    Checkpoint(Box<CheckpointError>),
    /// See [`RegistryError`].
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// See [`FileStoreError`].
    #[error(transparent)]
    Store(Box<FileStoreError>),
    /// See [`FetchError`].
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// See [`PushError`].
    #[error(transparent)]
    Push(Box<PushError>),
}

impl Error {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Push(error) => error.hint(),
        }
    }
}

macro_rules! from_module_errors {
    ($($variant:ident: $error:ty;)*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })*
    };
}

from_module_errors! {
    Checkpoint: CheckpointError;
    Registry: RegistryError;
    Store: FileStoreError;
    Fetch: FetchError;
    Push: PushError;
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
