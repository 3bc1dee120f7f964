//! The MLP of a transformer block.

use super::Linear;
use crate::{Result, params::ParamPath, tensor::Tensor};

/// Linear, GELU, linear.
pub struct FeedForward<T> {
    intermediate: Linear<T>,
    output: Linear<T>,
    name: String,
}

impl<T> FeedForward<T> {
    /// `width` to `hidden` and back. `path` is the block.
    pub fn new(width: usize, hidden: usize, path: &ParamPath<T>) -> Result<Self> {
        let inner = path.sub("intermediate");
        let intermediate = Linear::new(width, hidden, &inner.sub("dense"))?;
        let output = Linear::new(hidden, width, &path.sub("output.dense"))?;
        Ok(Self { intermediate, output, name: inner.name().to_owned() })
    }
}

impl<T: Tensor> FeedForward<T> {
    /// `(..., width)` to the same shape.
    pub fn forward(&self, x: &T) -> Result<T> {
        self.output.forward(&x.module(&self.name, || self.intermediate.forward(x)?.gelu())?)
    }
}
