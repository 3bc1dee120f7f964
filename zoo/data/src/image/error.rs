//! Errors of images.

use std::io;

use super::ImageFormat;

/// An image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The format is not supported.
    #[error("not a JPEG, PNG, GIF, BMP or WebP file")]
    Format,
    /// The image has too many pixels.
    #[error("too large: {width} x {height} pixels, where {limit} in all are allowed")]
    Size {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Maximum number of pixels.
        limit: usize,
    },
    /// No pixel can be decoded, for example because the file ends before.
    #[error("a {format} file without image data")]
    NoImageData {
        /// Format of the file.
        format: ImageFormat,
    },
    /// The file cannot be decoded.
    #[error("not decodable as {format}: {reason}")]
    Undecodable {
        /// Format of the file.
        format: ImageFormat,
        /// The fault.
        reason: String,
    },
    /// The image cannot be encoded.
    #[error("not encodable as {format}: {reason}")]
    Encode {
        /// Format of the file.
        format: ImageFormat,
        /// The fault.
        reason: String,
    },
    /// A decoder panicked.
    #[error("not decodable: the decoder panicked")]
    Panic,
}

impl ImageError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("file names are relative to the image folder of the data set".to_owned())
            }
            Self::Read(_) | Self::Size { .. } => None,
            _ => Some("fetch the image again, or take its rows out of the split".to_owned()),
        }
    }
}
