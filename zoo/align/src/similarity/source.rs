//! Sources of image embeddings.

use crate::{Error, Result};
use laps_model::array::Array;

/// Embeddings of images, read one image at a time.
pub trait ImageSource: Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of an image, and size of a token.
    fn shape(&self) -> [usize; 2];

    /// Copies the tokens `(tokens, width)` of an image into `tokens`, the class token first if there is one.
    ///
    /// # Errors
    /// An image that cannot be read.
    fn read(&self, image: usize, tokens: &mut [f32]) -> Result<()>;
}

/// `(images, tokens, width)`.
impl ImageSource for Array {
    fn len(&self) -> usize {
        self.dims().first().copied().unwrap_or(0)
    }

    fn shape(&self) -> [usize; 2] {
        match *self.dims() {
            [_, tokens, width] => [tokens, width],
            _ => [0, 0],
        }
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> Result<()> {
        let start = image * tokens.len();
        let from = self.values().get(start..start + tokens.len()).ok_or_else(|| Error::Operation {
            operation: "similarity",
            expected: format!("{} values of image {image}", tokens.len()),
            found: format!("{} values in all", self.values().len()),
        })?;
        tokens.copy_from_slice(from);
        Ok(())
    }
}
