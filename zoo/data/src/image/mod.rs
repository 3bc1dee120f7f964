//! Images: bytes of a file to normalised pixels, bit for bit as in Pillow 10.4.

mod bmp;
mod compress;
mod cursor;
mod decode;
mod error;
mod format;
mod gif;
mod jpeg;
mod png;
mod preprocess;
mod resize;
mod webp;

pub(crate) use compress::png_of_pixels;
pub use compress::{jpeg, png, thumbnail};
pub use decode::{Decoded, MAX_PIXELS, decode, decode_within, read};
pub use error::ImageError;
pub use format::{ExtensionKind, ImageFormat, READABLE_EXTENSIONS};
pub use preprocess::{Fit, Preprocessing};
pub use resize::resize;

/// An 8-bit RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// An image from `pixels` `(height, width, 3)` in row-major order, or `None` if their number is another one.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let count = width.checked_mul(height)?.checked_mul(3)?;
        (count > 0 && pixels.len() == count).then_some(Self { width, height, pixels })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The values `(height, width, 3)`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}
