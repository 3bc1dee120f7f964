//! Images: from the bytes of a file to normalised pixels, bit for bit as Pillow 10.4 does it.

mod compress;
mod decode;
mod error;
mod jpeg;
mod preprocess;
mod raster;
mod resize;

pub use compress::jpeg;
pub use decode::{Decoded, MAX_PIXELS, decode, read};
pub use error::ImageError;
pub use preprocess::Preprocessing;
pub use resize::resize;

/// Pixels of 8 bits, red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// `pixels` `(height, width, 3)` in row-major order as an image; `None` if they are not that many.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let count = width.checked_mul(height)?.checked_mul(3)?;
        (count > 0 && pixels.len() == count).then_some(Self { width, height, pixels })
    }

    /// Pixels in a row, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The values `(height, width, 3)`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}
