//! What can be wrong with an image.

use std::io;

/// Why an image can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be read.
    #[error("can not be read: {0}")]
    Read(#[from] io::Error),
    /// A file without a byte.
    #[error("the file is empty")]
    Empty,
    /// None of the formats that can be read.
    #[error("not a JPEG, PNG, GIF, BMP or WebP file")]
    Format,
    /// More pixels than an honest photo has.
    #[error("too large: {width} x {height} pixels, where {limit} in all are allowed")]
    Size {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Most pixels of an image.
        limit: usize,
    },
    /// A JPEG file that ends before its first pixel.
    #[error("a JPEG file without image data")]
    NoImageData,
    /// libjpeg-turbo can not decode the file.
    #[error("not decodable as JPEG: {reason}")]
    Jpeg {
        /// In the words of the library.
        reason: String,
    },
    /// The file can not be decoded.
    #[error("not decodable: {0}")]
    Codec(#[from] ::image::ImageError),
    /// A decoder failed in a way that it does not document.
    #[error("not decodable: the decoder gave up")]
    Panic,
}

impl ImageError {
    /// What the user can do about it, where that is known.
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
