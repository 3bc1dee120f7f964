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
    /// An image that no caption belongs to can not be found.
    #[error("image {image} has no caption\n  expected: at least one\n  found: none")]
    NoCaption {
        /// The image, counted from 0.
        image: usize,
    },
    /// A number of images that a protocol can not be computed on.
    #[error("protocol `{protocol}` can not be computed\n  expected: {expected}\n  found: {found} images")]
    Protocol {
        /// The protocol.
        protocol: super::Protocol,
        /// What it takes.
        expected: String,
        /// Images of the matrix.
        found: usize,
    },
    /// An unfinished matrix that is not the one to be computed.
    #[error("`{}` can not be continued\n  expected: the same embeddings and parameters, computed in the same way\n  found: others", path.display())]
    OtherInputs {
        /// The unfinished matrix.
        path: std::path::PathBuf,
    },
    /// A stored matrix that can not be read.
    #[error("can not read `{}`", path.display())]
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
            Self::OtherInputs { .. } => {
                "call it as it was begun, with as many threads, or remove the file to begin anew"
            }
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
