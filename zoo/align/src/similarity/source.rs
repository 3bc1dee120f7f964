//! Where patch embeddings come from.

use crate::{Error, Result};
use laps_model::array::Array;

/// Embeddings of images, read a few at a time.
pub trait ImageSource: Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of an image and width of a token.
    fn shape(&self) -> [usize; 2];

    /// Writes the tokens of an image, the class token first where there is one, to `tokens` of `(tokens, width)`.
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
        read(self.values(), image, tokens, |to, from| to.copy_from_slice(from))
    }
}

/// Embeddings `(images, tokens, width)` in half precision, from memory or a mapped file.
#[derive(Clone, Copy, Debug)]
pub struct HalfImages<'a> {
    values: &'a [half::f16],
    shape: [usize; 3],
}

impl<'a> HalfImages<'a> {
    /// `values` in row-major order as `(images, tokens, width)`.
    pub fn new(shape: [usize; 3], values: &'a [half::f16]) -> Result<Self> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::Operation {
                operation: "similarity",
                expected: format!("{} values for {shape:?}", shape.iter().product::<usize>()),
                found: format!("{} values", values.len()),
            });
        }
        Ok(Self { values, shape })
    }
}

impl ImageSource for HalfImages<'_> {
    fn len(&self) -> usize {
        self.shape[0]
    }

    fn shape(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> Result<()> {
        read(self.values, image, tokens, |to, from| {
            to.iter_mut().zip(from).for_each(|(slot, value)| *slot = value.to_f32());
        })
    }
}

fn read<T>(values: &[T], image: usize, tokens: &mut [f32], copy: impl Fn(&mut [f32], &[T])) -> Result<()> {
    let start = image * tokens.len();
    let from = values.get(start..start + tokens.len()).ok_or_else(|| Error::Operation {
        operation: "similarity",
        expected: format!("{} values of image {image}", tokens.len()),
        found: format!("{} values in all", values.len()),
    })?;
    copy(tokens, from);
    Ok(())
}
