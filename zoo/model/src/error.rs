//! Errors of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A model cannot be built or computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation got unsupported shapes or values.
    #[error("`{operation}` cannot be computed\n  expected: {expected}\n  found: {found}")]
    Operation {
        /// The operation, as the tensor trait names it.
        operation: &'static str,
        /// The requirement of the operation.
        expected: String,
        /// The value it received.
        found: String,
    },
    /// A backend of another crate failed.
    #[error("the engine `{engine}` failed")]
    Engine {
        /// Name of the backend, as the user writes it.
        engine: &'static str,
        /// Its error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A module of a model could not be built.
    #[error("module `{name}` cannot be built")]
    Module {
        /// Full name, as in checkpoints.
        name: String,
        /// The cause.
        #[source]
        source: Box<Error>,
    },
    /// A parameter could not be loaded.
    #[error("parameter `{name}` cannot be loaded\n  expected: {expected}\n  found: {found}")]
    Parameter {
        /// Full name, as in the checkpoint.
        name: String,
        /// The requirement of the model.
        expected: String,
        /// The outcome.
        found: String,
    },
    /// The caller's source of parameters failed.
    #[error("{0}")]
    Weights(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A configuration is invalid.
    #[error("`{key}` of the model cannot be used\n  expected: {expected}\n  found: {found}")]
    Config {
        /// The key in the entry file.
        key: String,
        /// The allowed values.
        expected: String,
        /// The value.
        found: String,
        /// The replacement, where one is known.
        hint: Option<&'static str>,
    },
    /// A requested device cannot be used.
    #[error("device `{device}` cannot be used: {reason}")]
    Device {
        /// Name of the device, as the user wrote it.
        device: String,
        /// The reason.
        reason: String,
        /// Suggested fix.
        hint: String,
    },
}

impl Error {
    /// Wraps an error of the caller's source of parameters.
    pub fn weights(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Weights(Box::new(source))
    }

    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Device { hint, .. } => Some(hint.clone()),
            Self::Config { hint, .. } => hint.map(str::to_owned),
            Self::Module { source, .. } => source.hint(),
            _ => None,
        }
    }
}
