//! Decodes the bytes of a file.
//!
//! Every file becomes 8-bit RGB as with Pillow's `convert("RGB")` and `LOAD_TRUNCATED_IMAGES`: grey is repeated, palettes
//! are looked up, an alpha channel is dropped without blending, and EXIF rotation and colour profiles are ignored. A file
//! that is cut is decoded as far as Pillow decodes it, with a warning. The format is detected from the content. What
//! Pillow rejects, and a file without a single pixel, is rejected.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::{ImageError, ImageFormat, RgbImage, bmp, gif, jpeg, png, webp};

/// Maximum number of pixels of an image, as in Pillow. A file of a few bytes can claim any size.
pub const MAX_PIXELS: usize = 178_956_970;

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The image.
    pub image: RgbImage,
    /// The decoder's warning, for example if the file is truncated and was decoded in part.
    pub damage: Option<String>,
}

/// Decodes the content of a JPEG, PNG, GIF, BMP or WebP file; of an animation, the first frame.
pub fn decode(bytes: &[u8]) -> Result<Decoded, ImageError> {
    decode_within(bytes, MAX_PIXELS)
}

/// As [`decode()`], but an image of more than `max_pixels` pixels is an error before memory is allocated for it.
///
/// # Errors
/// [`ImageError::Size`], and those of [`decode()`].
pub fn decode_within(bytes: &[u8], max_pixels: usize) -> Result<Decoded, ImageError> {
    // The bytes are untrusted. A decoder that panics must not end hours of work.
    catch_unwind(AssertUnwindSafe(|| match ImageFormat::detect(bytes) {
        Some(ImageFormat::Jpeg) => jpeg::decode(bytes, max_pixels),
        Some(ImageFormat::Png) => png::decode(bytes, max_pixels),
        Some(ImageFormat::Gif) => gif::decode(bytes, max_pixels),
        Some(ImageFormat::Bmp) => bmp::decode(bytes, max_pixels),
        Some(ImageFormat::WebP) => webp::decode(bytes, max_pixels),
        None if bytes.is_empty() => Err(ImageError::Empty),
        None => Err(ImageError::Format),
    }))
    .unwrap_or(Err(ImageError::Panic))
}

/// Reads and decodes a file. A FIFO, socket or device is an error.
pub fn read(path: &Path) -> Result<Decoded, ImageError> {
    decode(&laps_files::read_regular(path)?)
}

/// Rejects images without pixels, and sizes above `max_pixels` before memory is allocated.
pub(super) fn check_size(
    format: ImageFormat,
    width: usize,
    height: usize,
    max_pixels: usize,
) -> Result<(), ImageError> {
    let limit = max_pixels.min(MAX_PIXELS);
    match width.checked_mul(height) {
        Some(0) => Err(ImageError::Undecodable { format, reason: format!("an image of {width} x {height} pixels") }),
        Some(pixels) if pixels <= limit => Ok(()),
        _ => Err(ImageError::Size { width, height, limit }),
    }
}
