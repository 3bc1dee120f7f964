//! Multi-head self-attention.

use super::{Dropout, Linear};
use crate::{Result, dim::Dim, params::Path, tensor::Tensor};

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
    name: String,
}

impl<T> Attention<T> {
    /// `heads` heads over tokens of `width`; `path` is the block.
    pub fn new(width: usize, heads: usize, names: &Names, path: &Path<T>) -> Result<Self> {
        let inner = path.sub(names.inner);
        let projection = |name| Linear::new(width, width, &inner.sub(name));
        let [query, key, value] = [projection("query")?, projection("key")?, projection("value")?];
        let output = Linear::new(width, width, &path.sub(names.output))?;
        let name = inner.name().to_owned();
        Ok(Self { query, key, value, output, heads, dropout: Dropout::NONE, name })
    }

    /// The same with `dropout` of the attention weights.
    pub fn with_dropout(self, dropout: Dropout) -> Self {
        Self { dropout, ..self }
    }
}

impl<T: Tensor> Attention<T> {
    /// `(batch, length, width)` to the same; `bias` broadcasts to `(batch, heads, length, length)`.
    pub fn forward(&self, x: &T, bias: Option<&T>) -> Result<T> {
        let [_, _, width] = x.sizes()?;
        self.attend(x, (self.heads, width.divide(self.heads)?), bias)
    }

    /// Attention inside windows: `(batch, length, windows, width)` to the same; `bias` broadcasts to
    /// `(batch, windows * heads, length, length)`.
    pub fn forward_windows(&self, x: &T, bias: &T) -> Result<T> {
        let [_, _, windows, width] = x.sizes()?;
        // Each head of each window is a head of the whole: the windows lie beside the heads, not before the tokens.
        self.attend(x, (windows.fixed()? * self.heads, width.divide(self.heads)?), Some(bias))
    }

    /// `(batch, length, ...)`, of which `heads` heads of `size` are made, to the same.
    fn attend(&self, x: &T, (heads, size): (usize, Dim), bias: Option<&T>) -> Result<T> {
        let shape = x.shape();
        let &[batch, length, ..] = &shape[..] else { return x.sizes::<3>().map(|_| x.clone()) };
        let context = x.module(&self.name, || {
            let split = |layer: &Linear<T>| {
                layer.forward(x)?.reshape(&[batch, length, heads.into(), size])?.permute(&[0, 2, 1, 3])
            };
            let context = self.weigh(&split(&self.query)?, &split(&self.key)?, &split(&self.value)?, bias)?;
            context.permute(&[0, 2, 1, 3])?.reshape(&shape)
        })?;
        self.output.forward(&context)
    }

    fn weigh(&self, query: &T, key: &T, value: &T, bias: Option<&T>) -> Result<T> {
        if self.dropout.is_none() {
            return T::attention(query, key, value, bias);
        }
        self.dropout.forward(&T::attention_weights(query, key, bias)?)?.matmul(value)
    }
}
