//! Multi-head self-attention.

use super::{Dropout, Linear};
use crate::{Result, params::Path, tensor::Tensor};

/// Where a family of models keeps the projections, below the block.
pub struct Names {
    /// Holds `query`, `key` and `value`.
    pub inner: &'static str,
    /// The output projection.
    pub output: &'static str,
}

/// Self-attention with its output projection.
pub struct Attention<T> {
    query: Linear<T>,
    key: Linear<T>,
    value: Linear<T>,
    output: Linear<T>,
    heads: usize,
    dropout: Dropout,
}

impl<T> Attention<T> {
    /// `heads` heads over tokens of `width`; `path` is the block.
    pub fn new(width: usize, heads: usize, names: &Names, path: &Path<T>) -> Result<Self> {
        let inner = path.sub(names.inner);
        let projection = |name| Linear::new(width, width, &inner.sub(name));
        let [query, key, value] = [projection("query")?, projection("key")?, projection("value")?];
        let output = Linear::new(width, width, &path.sub(names.output))?;
        Ok(Self { query, key, value, output, heads, dropout: Dropout::NONE })
    }

    /// The same with `dropout` of the attention weights.
    pub fn with_dropout(self, dropout: Dropout) -> Self {
        Self { dropout, ..self }
    }
}

impl<T: Tensor> Attention<T> {
    /// `(batch, length, width)` to the same; `bias` broadcasts to `(batch, heads, length, length)`.
    pub fn forward(&self, x: &T, bias: Option<&T>) -> Result<T> {
        let [batch, length, width] = x.sizes()?;
        let size = width.divide(self.heads)?;
        let split = |layer: &Linear<T>| {
            layer.forward(x)?.reshape(&[batch, length, self.heads.into(), size])?.permute(&[0, 2, 1, 3])
        };
        let context = self.attend(&split(&self.query)?, &split(&self.key)?, &split(&self.value)?, bias)?;
        self.output.forward(&context.permute(&[0, 2, 1, 3])?.reshape(&[batch, length, width])?)
    }

    fn attend(&self, query: &T, key: &T, value: &T, bias: Option<&T>) -> Result<T> {
        if self.dropout.is_none() {
            return T::attention(query, key, value, bias);
        }
        self.dropout.forward(&T::attention_weights(query, key, bias)?)?.matmul(value)
    }

    /// Attention inside windows: `(batch, windows, length, width)` to the same; `bias` broadcasts to
    /// `(batch, windows * heads, length, length)`.
    pub fn forward_windows(&self, x: &T, bias: &T) -> Result<T> {
        let [batch, windows, length, width] = x.sizes()?;
        let size = width.divide(self.heads)?;
        let apart = [batch, windows, self.heads.into(), length, size];
        let merged = [batch, windows.times(self.heads), length, size];
        let split = |layer: &Linear<T>| {
            let x = layer.forward(x)?.reshape(&[batch, windows, length, self.heads.into(), size])?;
            x.permute(&[0, 1, 3, 2, 4])?.reshape(&merged)
        };
        let context = self.attend(&split(&self.query)?, &split(&self.key)?, &split(&self.value)?, Some(bias))?;
        let context = context.reshape(&apart)?.permute(&[0, 1, 3, 2, 4])?;
        self.output.forward(&context.reshape(&[batch, windows, length, width])?)
    }
}

/// `(batch, length)` with 1 for a token and 0 for padding, to an attention bias `(batch, 1, 1, length)`.
pub fn padding_bias<T: Tensor>(mask: &T) -> Result<T> {
    let [batch, length] = mask.sizes()?;
    // exp(-30000) is exactly 0 in f32, and -30000 is finite in f16.
    mask.affine(30000.0, -30000.0)?.reshape(&[batch, 1.into(), 1.into(), length])
}
