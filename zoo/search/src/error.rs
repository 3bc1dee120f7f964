//! Errors of this crate.

use std::path::PathBuf;

use laps_files::IoError;

use super::{IndexKind, StoreError};
use laps_data::image::ImageError;

/// An error about an index, a search or an embedding file.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The file is not an index.
    #[error(
        "`{}` is not a laps-zoo index\n  expected: a file written by `laps-zoo index`\n  found: {found}",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Kind of the file.
        found: String,
    },
    /// The index is cut off, or its tensors contradict each other.
    #[error("the index `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// Another process has changed the index since it was opened.
    #[error(
        "the index `{}` was changed meanwhile\n  expected: the index as it was read\n  found: an index that another process wrote",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A shard of the index is missing, or of other images than the manifest lists.
    #[error(
        "the index `{}` is incomplete\n  expected: the shard `{}`\n  found: {found}",
        path.display(), shard.display()
    )]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// The file of the shard.
        shard: PathBuf,
        /// The state of that file.
        found: String,
    },
    /// Another model wrote the index.
    #[error("the index `{}` was written by another {what}\n  expected: {expected}\n  found: {found}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The property that differs: `head`, `configuration` or `checkpoint`.
        what: &'static str,
        /// The model in use: its name, and its head or the hash.
        expected: String,
        /// The model that wrote the index: its name, and its head or the hash.
        found: String,
    },
    /// The index holds images where captions are needed, or the reverse.
    #[error(
        "`{}` is an index of {found}\n  expected: an index of {expected}\n  found: an index of {found}",
        path.display()
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// The required kind.
        expected: IndexKind,
        /// The kind of the index.
        found: IndexKind,
    },
    /// Items are filtered by their metadata, and an index file has none.
    #[error(
        "the items of `{}` have no metadata to filter by\n  expected: a database with metadata\n  found: an index file",
        path.display()
    )]
    NoMetadata {
        /// The file.
        path: PathBuf,
    },
    /// The store does not have an item.
    #[error("there is no item {item}\n  expected: the number of an item of the index\n  found: {item}")]
    NoItem {
        /// The number.
        item: usize,
    },
    /// A folder or file without anything to index.
    #[error("`{}` holds nothing to index\n  expected: {expected}\n  found: {found}", path.display())]
    Empty {
        /// The folder or file.
        path: PathBuf,
        /// The expected contents.
        expected: String,
        /// The found contents.
        found: String,
    },
    /// An image cannot be used.
    #[error("`{}` cannot be used: {cause}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The fault.
        cause: ImageError,
    },
    /// None of the images or captions can be used.
    #[error("none of the {count} {kind} in `{}` can be used\n  first: {name}: {reason}", path.display())]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// Kind of its items.
        kind: IndexKind,
        /// How many of them.
        count: usize,
        /// The first one: the image's name or the caption's line.
        name: String,
        /// The fault.
        reason: String,
    },
    /// An embedding value is outside the range of fp16.
    #[error(
        "the embeddings of `{name}` do not fit into half precision\n  expected: values below 65504\n  found: {value}"
    )]
    Overflow {
        /// The image or caption.
        name: String,
        /// The value.
        value: f32,
    },
    /// An unknown format or precision.
    #[error("`{option}` cannot be used\n  expected: {expected}\n  found: {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// The valid values.
        expected: &'static str,
        /// The given value.
        found: String,
    },
    /// The caller's stop flag was set.
    #[error("interrupted: {state}")]
    Interrupted {
        /// The finished or written part.
        state: String,
    },
}

impl SearchError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Foreign { .. } => {
                "name an index that `laps-zoo index` wrote, or a file that does not exist for a new one"
            }
            // The file has the header of an index.
            Self::Damaged { .. } => "remove this index and create it again with `laps-zoo index`",
            Self::Changed { .. } => "repeat the operation on the index as it is now",
            Self::Incomplete { .. } => "run `laps-zoo index` with the same folder and options for the missing shard",
            Self::OtherModel { .. } => "use the entry, checkpoint or graphs that wrote it, or create another index",
            Self::Kind { expected: IndexKind::Captions, .. } => {
                "search it by text, or create an index of captions with `laps-zoo index`"
            }
            Self::Kind { expected: IndexKind::Images, .. } => {
                "search it by image, or create an index of images with `laps-zoo index`"
            }
            Self::NoMetadata { .. } => "move the index into a Postgres database with `laps-zoo index`",
            Self::Overflow { .. } => "store the embeddings in precision `fp32`",
            Self::Empty { .. }
            | Self::NoItem { .. }
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

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`SearchError`].
    #[error(transparent)]
    Search(#[from] SearchError),
    /// See [`laps_files::Error`].
    #[error(transparent)]
    Files(#[from] laps_files::Error),
    /// See [`laps_data::Error`].
    #[error(transparent)]
    Data(#[from] laps_data::Error),
    /// See [`laps_align::Error`].
    #[error(transparent)]
    Align(#[from] laps_align::Error),
    /// See [`laps_model::Error`].
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// An error of a store outside of this crate.
    #[error("{0}")]
    Store(Box<dyn StoreError>),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Error {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Search(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Align(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Io(_) => None,
        }
    }
}

impl From<laps_data::DataError> for Error {
    fn from(error: laps_data::DataError) -> Self {
        Self::Data(error.into())
    }
}
