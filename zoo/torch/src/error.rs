//! Errors of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`crate::train::TrainError`].
    #[error(transparent)]
    Train(#[from] crate::train::TrainError),
    /// See [`crate::distributed::DistributedError`].
    #[error(transparent)]
    Distributed(#[from] crate::distributed::DistributedError),
    /// See [`laps_model::Error`].
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// See [`laps_data::Error`].
    #[error(transparent)]
    Data(#[from] laps_data::Error),
    /// See [`laps_align::Error`].
    #[error(transparent)]
    Align(#[from] laps_align::Error),
    /// See [`laps_hub::Error`].
    #[error(transparent)]
    Hub(#[from] laps_hub::Error),
    /// See [`laps_files::Error`].
    #[error(transparent)]
    Files(#[from] laps_files::Error),
    /// See [`laps::Error`].
    #[error(transparent)]
    Laps(Box<laps::Error>),
    /// libtorch refused an operation.
    #[error("libtorch refused an operation")]
    Torch(#[source] Box<tch::TchError>),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] laps_files::IoError),
}

impl Error {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Train(error) => error.hint(),
            Self::Distributed(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Align(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::Laps(error) => error.hint(),
            Self::Torch(_) | Self::Io(_) => None,
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

impl From<laps_align::RetrievalError> for Error {
    fn from(error: laps_align::RetrievalError) -> Self {
        Self::Align(error.into())
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends its C++ backtrace to the reason.
        let reason = |text: String| text.split("\nException raised from").next().unwrap_or_default().to_owned();
        let error = match error {
            tch::TchError::Torch(text) => tch::TchError::Torch(reason(text)),
            other => other,
        };
        Self::Torch(Box::new(error))
    }
}

/// Converts an error for the tensor trait of laps-model, whose error type does not know libtorch.
pub(crate) fn model_error(error: tch::TchError) -> laps_model::Error {
    laps_model::Error::Engine { engine: "torch", source: Box::new(Error::from(error)) }
}

impl From<Error> for laps_model::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Model(error) => error,
            other => Self::weights(other),
        }
    }
}

impl From<Error> for laps_align::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Align(error) => error,
            other => Self::caller(other),
        }
    }
}

impl From<laps::Error> for Error {
    fn from(error: laps::Error) -> Self {
        match error {
            laps::Error::Model(error) => error.into(),
            laps::Error::Data(error) => error.into(),
            laps::Error::Align(error) => error.into(),
            laps::Error::Hub(error) => error.into(),
            laps::Error::Files(error) => error.into(),
            laps::Error::Other { source, hint } => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::Laps(Box::new(laps::Error::Other { source, hint })),
            },
            other => Self::Laps(Box::new(other)),
        }
    }
}

/// For the backend interface. Text and hint are kept.
impl From<Error> for laps::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Model(error) => error.into(),
            Error::Data(error) => error.into(),
            Error::Align(error) => error.into(),
            Error::Hub(error) => error.into(),
            Error::Files(error) => error.into(),
            Error::Laps(error) => *error,
            other => {
                let hint = other.hint();
                Self::Other { source: Box::new(other), hint }
            }
        }
    }
}
