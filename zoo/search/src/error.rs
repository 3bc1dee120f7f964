//! What can go wrong with indexes and searching in them.

use std::path::PathBuf;

use super::Kind;
use laps_data::image::ImageError;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A file that is no index.
    #[error("`{}` is no index\n  expected: a file that `laps-zoo index` made\n  found: {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// An index whose parts contradict each other.
    #[error("the index `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An index that another model made.
    #[error("the index `{}` was made by another {what}\n  expected: {expected}\n  found: {found}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// In what they differ: `configuration`, `checkpoint`.
        what: &'static str,
        /// The hash of the model at hand.
        expected: String,
        /// The one that made the index.
        found: String,
    },
    /// An index of the other kind.
    #[error("`{}` is an index of {found}\n  expected: an index of {expected}\n  found: one of {found}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What is needed.
        expected: Kind,
        /// What it is.
        found: Kind,
    },
    /// A place without anything to index.
    #[error("`{}` holds nothing to index\n  expected: {expected}\n  found: {found}", path.display())]
    Empty {
        /// The folder or file.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// An image that can not be used.
    #[error("`{}` can not be used: {cause}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: ImageError,
    },
    /// Images of which none can be used.
    #[error("none of the {count} images in `{}` can be used\n  first: `{name}`: {reason}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// The first of them.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Embeddings that can not be stored in half precision.
    #[error(
        "the embeddings of `{name}` do not fit into half precision\n  expected: values below 65504\n  found: {value}"
    )]
    Overflow {
        /// The image or caption.
        name: String,
        /// A value.
        value: f32,
    },
    /// A format or precision that there is not.
    #[error("`{option}` can not be used\n  expected: {expected}\n  found: {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// The user asked to stop.
    #[error("interrupted: {state}")]
    Interrupted {
        /// What there is.
        state: String,
    },
}

impl SearchError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Foreign { .. } | Self::Damaged { .. } => {
                "make it again with `laps-zoo index`, after removing this file"
            }
            Self::OtherModel { .. } => "name the entry, checkpoint or graphs that made it, or make another index",
            Self::Kind { expected: Kind::Captions, .. } => {
                "search it by a text, or make an index of captions with `laps-zoo index --captions FILE`"
            }
            Self::Kind { expected: Kind::Images, .. } => {
                "search it with `--image FILE`, or make an index of images with `laps-zoo index DIR`"
            }
            Self::Overflow { .. } => "store them with `--precision fp32`",
            Self::Empty { .. }
            | Self::Image { .. }
            | Self::Unusable { .. }
            | Self::Option { .. }
            | Self::Interrupted { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`SearchError`].
    #[error(transparent)]
    Search(#[from] SearchError),
    /// See [`laps_data::Error`].
    #[error(transparent)]
    Data(#[from] laps_data::Error),
    /// See [`laps_align::Error`].
    #[error(transparent)]
    Align(#[from] laps_align::Error),
    /// See [`laps_model::Error`].
    #[error(transparent)]
    Model(#[from] laps_model::Error),
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
            Self::Search(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Align(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Io { .. } => None,
        }
    }
}

impl From<laps_data::DataError> for Error {
    fn from(error: laps_data::DataError) -> Self {
        Self::Data(error.into())
    }
}
