//! The two layers of a transformer block that work on each token alone.

use super::Linear;
use crate::{Result, params::Path, tensor::Tensor};

/// A linear layer, GELU, and a linear layer back.
pub struct FeedForward<T> {
    intermediate: Linear<T>,
    output: Linear<T>,
    name: String,
}

impl<T> FeedForward<T> {
    /// `width` to `hidden` and back; `path` is the block.
    pub fn new(width: usize, hidden: usize, path: &Path<T>) -> Result<Self> {
        let place = path.sub("intermediate");
        let intermediate = Linear::new(width, hidden, &place.sub("dense"))?;
        let output = Linear::new(hidden, width, &path.sub("output.dense"))?;
        Ok(Self { intermediate, output, name: place.name().to_owned() })
    }
}

impl<T: Tensor> FeedForward<T> {
    /// `(..., width)` to the same.
    pub fn forward(&self, x: &T) -> Result<T> {
        self.output.forward(&x.module(&self.name, || self.intermediate.forward(x)?.gelu())?)
    }
}
