//! Layer normalisation.

use crate::{
    Result,
    params::{Init, Path},
    tensor::Tensor,
};

/// Normalises the last axis, then scales and shifts it.
pub struct LayerNorm<T> {
    weight: T,
    bias: T,
    epsilon: f64,
}

impl<T> LayerNorm<T> {
    /// Over `width` values.
    pub fn new(width: usize, epsilon: f64, path: &Path<T>) -> Result<Self> {
        let weight = path.get("weight", &[width], Init::Ones)?;
        Ok(Self { weight, bias: path.get("bias", &[width], Init::Zeros)?, epsilon })
    }
}

impl<T: Tensor> LayerNorm<T> {
    /// `(..., width)` to the same.
    pub fn forward(&self, x: &T) -> Result<T> {
        x.layer_norm(&self.weight, &self.bias, self.epsilon)
    }
}
