//! The error of this crate.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of measuring, reading and writing results.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the crates below: models, data, checkpoints, similarities, graphs.
    #[error(transparent)]
    Laps(#[from] laps::Error),
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is not a result of [`reproduce`](crate::reproduce) or [`foreign`](crate::foreign), or it contradicts itself.
    #[error("`{}` is not a valid result\n  expected: {expected}\n  found: {found}", path.display())]
    InvalidResult {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: String,
        /// The content of the file.
        found: String,
        /// Advice for the user, if there is any.
        hint: Option<&'static str>,
    },
    /// The part of a result that another rank of a distributed run sent.
    #[error("the result of another rank cannot be read")]
    RankResult {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The template of a report or a card cannot be filled in.
    #[error("cannot fill in the template")]
    Template {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of measures cannot be parsed.
    #[error("`{}` does not contain valid measures", path.display())]
    Baseline {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A suite, or its committed results, cannot be used.
    #[error("`{}` cannot be used\n  expected: {expected}\n  found: {found}", path.display())]
    Suite {
        /// The file or folder.
        path: PathBuf,
        /// The expected content.
        expected: String,
        /// Its content.
        found: String,
    },
    /// A file of another program cannot be evaluated.
    #[error("cannot evaluate `{}`\n  expected: {expected}\n  found: {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: String,
        /// The content of the file.
        found: String,
        /// Advice for the user.
        hint: &'static str,
    },
    /// The result is not one of a task of MTEB.
    #[error("no task of MTEB has this protocol\n  expected: {expected}\n  found: {found}")]
    Mteb {
        /// The protocol of the tasks.
        expected: String,
        /// The protocol of the result.
        found: String,
    },
    /// The run was interrupted.
    #[error("interrupted: {state}")]
    Interrupted {
        /// The work that is saved.
        state: String,
        /// How to resume.
        hint: &'static str,
    },
    /// An argument has an invalid value.
    #[error("`{argument}` cannot be used\n  expected: {expected}\n  found: {found}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// The allowed values.
        expected: String,
        /// The given value.
        found: String,
    },
}

impl Error {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Laps(error) => error.hint(),
            Self::Interrupted { hint, .. } | Self::Foreign { hint, .. } => Some((*hint).to_owned()),
            Self::InvalidResult { hint, .. } => hint.map(str::to_owned),
            Self::Mteb { .. } => Some(
                "MTEB has tasks for the test split of Flickr30K with its captions as published; other texts give other results"
                    .to_owned(),
            ),
            Self::RankResult { .. }
            | Self::Template { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Baseline { .. }
            | Self::Suite { .. }
            | Self::Argument { .. } => None,
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
    laps_hub::store::FileStoreError
);
