//! From the bytes of a file to an image.
//!
//! Every file becomes 8-bit RGB the way Pillow's `convert("RGB")` makes it: grey is repeated, a palette looked up, an
//! alpha channel dropped without blending, EXIF rotation and colour profiles ignored. The format is told from the
//! content.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::{ImageError, RgbImage, jpeg, raster};

/// Most pixels of an image. A file may claim any size in a few bytes; this is where Pillow refuses such a file.
pub const MAX_PIXELS: usize = 178_956_970;

/// An image out of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The image.
    pub image: RgbImage,
    /// What the decoder had to put up with: a JPEG that was cut short is decoded as far as it goes.
    pub damage: Option<String>,
}

/// Decodes the content of a JPEG, PNG, GIF (its first frame), BMP or WebP file.
pub fn decode(bytes: &[u8]) -> Result<Decoded, ImageError> {
    // Decoders work on bytes that nobody vouches for: one that panics must not end hours of work without a word.
    catch_unwind(AssertUnwindSafe(|| match bytes {
        [] => Err(ImageError::Empty),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes),
        _ => Ok(Decoded { image: raster::decode(bytes)?, damage: None }),
    }))
    .unwrap_or(Err(ImageError::Panic))
}

/// Reads and decodes a file.
pub fn read(path: &Path) -> Result<Decoded, ImageError> {
    decode(&std::fs::read(path)?)
}

/// Refuses sizes beyond [`MAX_PIXELS`] before memory is taken for them.
pub(super) fn check_size(width: usize, height: usize) -> Result<(), ImageError> {
    match width.checked_mul(height) {
        Some(1..=MAX_PIXELS) => Ok(()),
        _ => Err(ImageError::Size { width, height, limit: MAX_PIXELS }),
    }
}
