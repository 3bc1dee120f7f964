//! The error of this crate, and the hint of any error of the workspace.

use std::path::PathBuf;

use laps_hub::{checkpoint::CheckpointError, registry::RegistryError};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of opening and using a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Models and tensors.
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// Captions, images and drawn scenes.
    #[error(transparent)]
    Data(#[from] laps_data::Error),
    /// Similarities and recalls.
    #[error(transparent)]
    Align(#[from] laps_align::Error),
    /// Entries, checkpoints and downloads.
    #[error(transparent)]
    Hub(#[from] laps_hub::Error),
    /// Indexes.
    #[error(transparent)]
    Search(#[from] laps_search::Error),
    /// Graphs and ONNX Runtime.
    #[error(transparent)]
    Onnx(#[from] laps_onnx::Error),
    /// Files.
    #[error(transparent)]
    Files(#[from] laps_files::Error),
    /// An engine outside of this crate failed.
    #[error("{source}")]
    Other {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
        /// Hint for the user, if there is one.
        hint: Option<String>,
    },
    /// An engine cannot be used.
    #[error("engine `{engine}` cannot be used: {reason}")]
    Engine {
        /// As the user named it.
        engine: String,
        /// The reason.
        reason: String,
        /// Suggested fix.
        hint: String,
    },
    /// A variable of a distributed run is missing or invalid.
    #[error("the environment variable `{variable}` cannot be used\n  expected: {expected}\n  found: {found}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// A valid value.
        expected: String,
        /// Its value.
        found: String,
    },
    /// Threads that cannot be started.
    #[error("{threads} threads cannot be started: {reason}")]
    Threads {
        /// The number of threads.
        threads: usize,
        /// The reason.
        reason: String,
    },
    /// There is no checkpoint for an entry.
    #[error("entry `{entry}` needs a checkpoint\n  expected: the path of a checkpoint\n  found: none")]
    NoCheckpoint {
        /// The entry.
        entry: String,
        /// Where to get one.
        hint: String,
    },
    /// There is no vocabulary for a model.
    #[error(
        "the text encoder of `{entry}` needs a vocabulary\n  expected: the path of a WordPiece vocabulary, one token per line\n  found: none"
    )]
    NoVocabulary {
        /// The entry, or the folder of graphs.
        entry: String,
    },
    /// An entry that draws its data has no such split.
    #[error("split `{split}` cannot be drawn\n  expected: {expected}\n  found: `{split}`")]
    NoSuchSplit {
        /// The split.
        split: String,
        /// The splits that can be drawn.
        expected: String,
    },
    /// A head whose similarity cannot be split into contributions.
    #[error(
        "a similarity of the head `{head}` cannot be explained\n  expected: a sum over patches and words\n  found: {found}"
    )]
    NotExplained {
        /// The head.
        head: String,
        /// The kind of its similarity.
        found: &'static str,
    },
    /// An image cannot be used.
    #[error("image `{}` cannot be used", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: laps_data::image::ImageError,
    },
}

impl Error {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Align(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Search(error) => error.hint(),
            Self::Onnx(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::Engine { hint, .. } | Self::NoCheckpoint { hint, .. } => Some(hint.clone()),
            Self::Other { hint, .. } => hint.clone(),
            Self::Environment { .. } => Some(
                "torchrun and `laps-zoo launch` set these variables; unset WORLD_SIZE to run one process".to_owned(),
            ),
            Self::NotExplained { .. } => {
                Some("explain a model with the head `laps`, `scan_*`, `max_mean` or `chan`".to_owned())
            }
            Self::Threads { .. } | Self::NoVocabulary { .. } | Self::NoSuchSplit { .. } | Self::Image { .. } => None,
        }
    }
}

/// The text of an error: itself, its causes and the hint, one per line.
pub fn describe(error: &(dyn std::error::Error + 'static), hint: Option<String>) -> String {
    let mut text = format!("{error}\n");
    let mut last = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        // Transparent wrappers repeat the message of their source.
        if !last.ends_with(&cause) {
            text += &format!("  caused by: {cause}\n");
        }
        last = cause;
    }
    if let Some(hint) = hint {
        text += &format!("hint: {hint}\n");
    }
    text
}

/// The hint of an error of any crate of the workspace, without its causes.
pub fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    macro_rules! first_hint {
        ($($kind:ty),* $(,)?) => {
            None$(.or_else(|| error.downcast_ref::<$kind>().and_then(|error| error.hint())))*
        };
    }
    first_hint!(
        Error,
        laps_files::Error,
        laps_model::Error,
        laps_data::Error,
        laps_data::DataError,
        laps_align::Error,
        laps_hub::Error,
        laps_search::Error,
        laps_onnx::Error,
        laps_onnx::runtime::RuntimeError,
        CheckpointError,
        RegistryError,
        laps_hub::store::FileStoreError,
        laps_hub::fetch::FetchError,
        laps_hub::push::PushError,
    )
}

macro_rules! from_module_errors {
    ($($crate_error:ident: $($error:ty),+;)*) => {
        $($(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$crate_error(error.into())
            }
        })+)*
    };
}

from_module_errors! {
    Data: laps_data::DataError, laps_data::scenes::SceneError;
    Align: laps_align::RetrievalError;
    Hub: CheckpointError, RegistryError, laps_hub::store::FileStoreError, laps_hub::fetch::FetchError;
    Search: laps_search::SearchError;
    Onnx: laps_onnx::runtime::RuntimeError;
}
