//! The error of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while a model is built or computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation got shapes or values that it cannot work on.
    #[error("`{operation}` cannot be computed\n  expected: {expected}\n  found: {found}")]
    Operation {
        /// The operation, as the tensor trait names it.
        operation: &'static str,
        /// What the operation takes.
        expected: String,
        /// What it got.
        found: String,
    },
    /// A backend outside of this crate failed.
    #[error("the engine `{engine}` failed")]
    Engine {
        /// As the user names it.
        engine: &'static str,
        /// What it says.
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
        /// What the model needs.
        expected: String,
        /// What there is.
        found: String,
    },
    /// The caller's source of weights failed.
    #[error("{0}")]
    Weights(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A configuration describes no model.
    #[error("`{key}` of the model cannot be used\n  expected: {expected}\n  found: {found}")]
    Config {
        /// The key in the entry file.
        key: String,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A requested device cannot be used.
    #[error("device `{device}` cannot be used: {reason}")]
    Device {
        /// As the user named it.
        device: String,
        /// The reason.
        reason: String,
        /// What the user can do.
        hint: String,
    },
}

impl Error {
    /// Wraps an error of the caller's weights.
    pub fn weights(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Weights(Box::new(source))
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Device { hint, .. } => Some(hint.clone()),
            Self::Module { source, .. } => source.hint(),
            _ => None,
        }
    }
}
