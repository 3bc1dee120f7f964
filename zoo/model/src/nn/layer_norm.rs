//! Layer normalisation.

use crate::{
    Result,
    params::{Init, ParamPath},
    tensor::Tensor,
};

/// Normalises the last axis, then multiplies by the weight and adds the bias.
pub struct LayerNorm<T> {
    weight: T,
    bias: T,
    eps: f64,
}

impl<T> LayerNorm<T> {
    /// Layer normalisation of rows of `width`.
    pub fn new(width: usize, eps: f64, path: &ParamPath<T>) -> Result<Self> {
        let weight = path.get("weight", &[width], Init::Ones)?;
        Ok(Self { weight, bias: path.get("bias", &[width], Init::Zeros)?, eps })
    }
}

impl<T: Tensor> LayerNorm<T> {
    /// `(..., width)` to the same shape.
    pub fn forward(&self, x: &T) -> Result<T> {
        x.layer_norm(&self.weight, &self.bias, self.eps)
    }
}
