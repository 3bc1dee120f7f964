//! What can go wrong here.

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum RetrievalError {
    /// A similarity matrix whose sizes contradict each other.
    #[error("the similarity matrix has the wrong size\n  expected: {expected}\n  found: {found}")]
    Size {
        /// What the sizes call for.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A score that is no number has no rank.
    #[error("the similarity of image row {row} and caption column {column} is NaN\n  expected: numbers\n  found: NaN")]
    NotANumber {
        /// Row of the matrix, counted from 0.
        row: usize,
        /// Column of the matrix, counted from 0.
        column: usize,
    },
    /// A caption of an image that is not in the matrix.
    #[error(
        "caption {caption} belongs to no image of the matrix\n  expected: an image below {images}\n  found: {image}"
    )]
    UnknownImage {
        /// The caption, counted from 0.
        caption: usize,
        /// Its image, counted from 0.
        image: usize,
        /// Images of the matrix.
        images: usize,
    },
    /// An image that no caption belongs to cannot be found.
    #[error("image {image} has no caption\n  expected: at least one\n  found: none")]
    NoCaption {
        /// The image, counted from 0.
        image: usize,
    },
    /// A number of images that a protocol cannot be computed on.
    #[error("protocol `{protocol}` cannot be computed\n  expected: {expected}\n  found: {found} images")]
    Protocol {
        /// The protocol.
        protocol: super::Protocol,
        /// What it takes.
        expected: String,
        /// Images of the matrix.
        found: usize,
    },
    /// An unfinished matrix that is not the one to be computed.
    #[error("`{}` cannot be continued\n  expected: the same embeddings and parameters, computed in the same way\n  found: others", path.display())]
    OtherInputs {
        /// The unfinished matrix.
        path: std::path::PathBuf,
    },
    /// A stored matrix that cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A protocol that there is not.
    #[error("there is no protocol `{name}`\n  expected: `f30k`, `coco_5k` or `coco_1k`\n  found: `{name}`")]
    UnknownProtocol {
        /// As the user named it.
        name: String,
    },
}

impl RetrievalError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotANumber { .. } => "the checkpoint or the precision makes embeddings that are not finite",
            Self::OtherInputs { .. } => "call it as it was begun, with as many threads, or write to another file",
            Self::NoCaption { .. } => "each image of the ids file needs a line in the captions file",
            Self::Protocol { protocol: super::Protocol::Coco1k, .. } => {
                "leave `--limit` away, make it a multiple of 1000, or use protocol `coco_5k`, which takes the whole matrix"
            }
            Self::Size { .. }
            | Self::UnknownImage { .. }
            | Self::Protocol { .. }
            | Self::Read { .. }
            | Self::UnknownProtocol { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`RetrievalError`].
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// See [`laps_model::Error`].
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// The image source or the sink of the caller failed.
    #[error("{0}")]
    Caller(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A computation got shapes or values that it cannot work on.
    #[error("`{operation}` cannot be computed\n  expected: {expected}\n  found: {found}")]
    Operation {
        /// The computation.
        operation: &'static str,
        /// What it takes.
        expected: String,
        /// What it got.
        found: String,
    },
    /// A parameter of the aggregation network could not be loaded.
    #[error("parameter `{name}` cannot be loaded\n  expected: {expected}\n  found: {found}")]
    Parameter {
        /// Full name, as in the checkpoint.
        name: String,
        /// What the engine needs.
        expected: String,
        /// What there is.
        found: String,
    },
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
    /// Wraps an error of the caller's image source or sink.
    pub fn caller(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Caller(Box::new(source))
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Retrieval(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Caller(_)
            | Self::Operation { .. }
            | Self::Parameter { .. }
            | Self::Config { .. }
            | Self::Io { .. } => None,
        }
    }
}
