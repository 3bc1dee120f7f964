//! Decodes the bytes of a file.
//!
//! Every file becomes 8-bit RGB as with Pillow's `convert("RGB")`: grey is repeated, palettes are looked up, an alpha channel
//! is dropped without blending, and EXIF rotation and colour profiles are ignored. The format is detected from the content.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::{ImageError, RgbImage, jpeg, raster};

/// Maximum number of pixels of an image, as in Pillow. A file of a few bytes can claim any size.
pub const MAX_PIXELS: usize = 178_956_970;

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The image.
    pub image: RgbImage,
    /// The decoder's warning. A truncated JPEG file, for example, is decoded in part.
    pub damage: Option<String>,
}

/// Decodes the content of a JPEG, PNG, GIF (its first frame), BMP or WebP file.
pub fn decode(bytes: &[u8]) -> Result<Decoded, ImageError> {
    // The bytes are untrusted. A decoder that panics must not end hours of work.
    catch_unwind(AssertUnwindSafe(|| match bytes {
        [] => Err(ImageError::Empty),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes),
        _ => Ok(Decoded { image: raster::decode(bytes)?, damage: None }),
    }))
    .unwrap_or(Err(ImageError::Panic))
}

/// Reads and decodes a file. A FIFO, socket or device is an error.
pub fn read(path: &Path) -> Result<Decoded, ImageError> {
    decode(&laps_files::read_regular(path)?)
}

/// Rejects sizes above [`MAX_PIXELS`] before memory is allocated.
pub(super) fn check_size(width: usize, height: usize) -> Result<(), ImageError> {
    match width.checked_mul(height) {
        Some(1..=MAX_PIXELS) => Ok(()),
        _ => Err(ImageError::Size { width, height, limit: MAX_PIXELS }),
    }
}
