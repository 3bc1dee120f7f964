//! The error of this crate.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`laps::Error`].
    #[error(transparent)]
    Laps(#[from] laps::Error),
    /// An engine that this build has not.
    #[error("engine `{engine}` can not be used: {reason}")]
    Engine {
        /// As the user named it.
        engine: String,
        /// Why not.
        reason: &'static str,
        /// What mends it.
        hint: &'static str,
    },
    /// An encoder from outside of this crate that can not be had.
    #[error("engine `{engine}` can not be used")]
    Source {
        /// As the user named it.
        engine: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no checkpoint for an entry.
    #[error("entry `{entry}` needs a checkpoint\n  expected: a file given as --checkpoint\n  found: none")]
    NoCheckpoint {
        /// The entry.
        entry: String,
        /// Where one can be had.
        hint: String,
    },
    /// A file could not be written.
    #[error("can not write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that could not be read.
    #[error("can not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file that is no result, or one that can not be trusted.
    #[error("`{}` is no result to report\n  expected: {expected}\n  found: {found}", path.display())]
    NoResult {
        /// The file.
        path: PathBuf,
        /// What a result has.
        expected: String,
        /// What is there.
        found: String,
        /// What mends it.
        hint: Option<&'static str>,
    },
    /// A page that could not be made of its template.
    #[error("the page can not be made")]
    Page {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of figures that can not be read.
    #[error("`{}` holds no figures that can be read", path.display())]
    Baseline {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image file that can not be used.
    #[error("image `{}` can not be used", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The user asked to stop.
    #[error("interrupted: {state}")]
    Interrupted {
        /// What there is.
        state: String,
        /// How to go on.
        hint: &'static str,
    },
    /// A request that can not be met.
    #[error("`{option}` can not be used\n  expected: {expected}\n  found: {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
}

impl Error {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Laps(error) => error.hint(),
            Self::Engine { hint, .. } | Self::Interrupted { hint, .. } => Some((*hint).to_owned()),
            Self::NoCheckpoint { hint, .. } => Some(hint.clone()),
            Self::NoResult { hint, .. } => hint.map(str::to_owned),
            Self::Source { .. }
            | Self::Page { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Baseline { .. }
            | Self::Image { .. }
            | Self::Option { .. } => None,
        }
    }
}

macro_rules! from_laps {
    ($($error:ty),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Laps(error.into())
            }
        })*
    };
}

from_laps!(
    laps_model::Error,
    laps_data::Error,
    laps_align::Error,
    laps_hub::Error,
    laps_search::Error,
    laps_onnx::Error,
    laps_onnx::runtime::RuntimeError,
    laps_files::Error,
    laps_data::scenes::SceneError,
    laps_hub::checkpoint::CheckpointError,
    laps_data::DataError,
    laps_hub::registry::RegistryError,
    laps_align::RetrievalError,
    laps_hub::store::StoreError
);
