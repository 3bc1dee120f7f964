//! Errors of this crate.

/// A similarity matrix cannot be evaluated, stored or read.
#[derive(Debug, thiserror::Error)]
pub enum RetrievalError {
    /// A similarity matrix whose sizes contradict each other.
    #[error("the similarity matrix has the wrong size\n  expected: {expected}\n  found: {found}")]
    Size {
        /// The expected sizes.
        expected: String,
        /// The sizes that were found.
        found: String,
    },
    /// A score is NaN and has no rank.
    #[error("the similarity of image row {row} and caption column {column} is NaN\n  expected: numbers\n  found: NaN")]
    NotANumber {
        /// Row of the matrix, counted from 0.
        row: usize,
        /// Column of the matrix, counted from 0.
        column: usize,
    },
    /// A caption belongs to an image that is not in the matrix.
    #[error(
        "caption {caption} belongs to an image that is not in the matrix\n  expected: an image below {images}\n  \
         found: image {image}"
    )]
    UnknownImage {
        /// The caption, counted from 0.
        caption: usize,
        /// Its image, counted from 0.
        image: usize,
        /// Number of images of the matrix.
        images: usize,
    },
    /// An image has no caption, so it cannot be retrieved.
    #[error("image {image} has no caption\n  expected: at least one\n  found: none")]
    NoCaption {
        /// The image, counted from 0.
        image: usize,
    },
    /// The protocol cannot divide the images into folds.
    #[error("protocol `{protocol}` cannot be computed\n  expected: {expected}\n  found: {found} images")]
    Protocol {
        /// The protocol.
        protocol: super::Protocol,
        /// The expected number of images.
        expected: String,
        /// Number of images of the matrix.
        found: usize,
    },
    /// A partial matrix was computed from other inputs.
    #[error("`{}` cannot be resumed\n  expected: a matrix of the same embeddings, parameters and options\n  found: one of other inputs", path.display())]
    OtherInputs {
        /// The partial matrix.
        path: std::path::PathBuf,
    },
    /// A matrix in a file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// An unknown protocol.
    #[error("unknown protocol `{name}`\n  expected: `f30k`, `coco_5k` or `coco_1k`\n  found: `{name}`")]
    UnknownProtocol {
        /// The name as the user gave it.
        name: String,
    },
}

impl RetrievalError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotANumber { .. } => "the embeddings are not finite: check the checkpoint and the precision",
            Self::OtherInputs { .. } => {
                "repeat the original arguments, including the number of threads, or write to another file"
            }
            Self::NoCaption { .. } => "each image of the ids file needs a line in the captions file",
            Self::Protocol { protocol: super::Protocol::Coco1k, .. } => {
                "evaluate a multiple of 1000 images, or use protocol `coco_5k`, which takes the whole matrix"
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

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`RetrievalError`].
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// See [`laps_model::Error`].
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// See [`laps_files::Error`].
    #[error(transparent)]
    Files(#[from] laps_files::Error),
    /// An error of the caller's image source or sink.
    #[error("{0}")]
    Caller(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An operation got invalid shapes or values.
    #[error("`{operation}` cannot be computed\n  expected: {expected}\n  found: {found}")]
    Operation {
        /// The operation.
        operation: &'static str,
        /// The expected input.
        expected: String,
        /// The input that was found.
        found: String,
    },
    /// A parameter of the aggregation network cannot be loaded.
    #[error("parameter `{name}` cannot be loaded\n  expected: {expected}\n  found: {found}")]
    Parameter {
        /// Full name, as in the checkpoint.
        name: String,
        /// The expected shape or value.
        expected: String,
        /// The shape or value that was found.
        found: String,
    },
    /// Invalid sizes of the alignment.
    #[error("`{key}` of the model cannot be used\n  expected: {expected}\n  found: {found}")]
    Config {
        /// The key in the entry file.
        key: String,
        /// The allowed values.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] laps_files::IoError),
}

impl Error {
    /// Wraps an error of the caller's image source or sink.
    pub fn caller(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Caller(Box::new(source))
    }

    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Retrieval(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::Caller(_) | Self::Operation { .. } | Self::Parameter { .. } | Self::Config { .. } | Self::Io(_) => {
                None
            }
        }
    }
}
