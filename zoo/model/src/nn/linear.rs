//! A fully connected layer.

use crate::{
    Result,
    params::{Init, ParamPath},
    tensor::Tensor,
};

/// `x W^T + b`.
pub struct Linear<T> {
    weight: T,
    bias: Option<T>,
}

impl<T> Linear<T> {
    /// A layer with a bias, initialised like the encoders.
    pub fn new(input: usize, output: usize, path: &ParamPath<T>) -> Result<Self> {
        let weight = path.get("weight", &[output, input], Init::Normal)?;
        Ok(Self { weight, bias: Some(path.get("bias", &[output], Init::Zeros)?) })
    }

    /// A layer with a bias and PyTorch's default initialisation.
    pub fn with_default_init(input: usize, output: usize, path: &ParamPath<T>) -> Result<Self> {
        let init = Init::Uniform { inputs: input };
        let weight = path.get("weight", &[output, input], init)?;
        Ok(Self { weight, bias: Some(path.get("bias", &[output], init)?) })
    }

    /// A layer with a bias of 0 and Xavier's initialisation.
    pub fn with_xavier_init(input: usize, output: usize, path: &ParamPath<T>) -> Result<Self> {
        let weight = path.get("weight", &[output, input], Init::Xavier { inputs: input, outputs: output })?;
        Ok(Self { weight, bias: Some(path.get("bias", &[output], Init::Zeros)?) })
    }

    /// A layer without a bias.
    pub fn without_bias(input: usize, output: usize, path: &ParamPath<T>) -> Result<Self> {
        Ok(Self { weight: path.get("weight", &[output, input], Init::Normal)?, bias: None })
    }
}

impl<T: Tensor> Linear<T> {
    /// `(..., input)` to `(..., output)`.
    pub fn forward(&self, x: &T) -> Result<T> {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
