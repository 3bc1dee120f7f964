//! Multi-head self-attention.

use super::{Dropout, Linear};
use crate::{Result, dim::Dim, params::ParamPath, tensor::Tensor};

/// Names of the projections of `ViTModel`, `SwinModel` and `BertModel`.
pub const PROJECTIONS: [&str; 3] = ["query", "key", "value"];

/// Names of the projections below the block, which differ between model families.
pub struct AttentionNames {
    /// The path of the projections of query, key and value.
    pub inner: &'static str,
    /// Their names.
    pub projections: [&'static str; 3],
    /// The path of the output projection.
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
    /// Attention with `heads` heads over tokens of `width`. `path` is the block.
    pub fn new(width: usize, heads: usize, names: &AttentionNames, path: &ParamPath<T>) -> Result<Self> {
        let inner = path.sub(names.inner);
        let projection = |name| Linear::new(width, width, &inner.sub(name));
        let [query, key, value] = names.projections.map(projection);
        let (query, key, value) = (query?, key?, value?);
        let output = Linear::new(width, width, &path.sub(names.output))?;
        let name = inner.name().to_owned();
        Ok(Self { query, key, value, output, heads, dropout: Dropout::NONE, name })
    }

    /// Adds `dropout` of the attention weights.
    pub fn with_dropout(self, dropout: Dropout) -> Self {
        Self { dropout, ..self }
    }
}

impl<T: Tensor> Attention<T> {
    /// `(batch, length, width)` to the same shape. `bias` broadcasts to `(batch, heads, length, length)`.
    pub fn forward(&self, x: &T, bias: Option<&T>) -> Result<T> {
        let [_, _, width] = x.sizes()?;
        self.attend(x, self.heads, width.divide(self.heads)?, bias)
    }

    /// Attention within windows: `(batch, length, windows, width)` to the same shape. `bias` broadcasts to
    /// `(batch, windows * heads, length, length)`.
    pub fn forward_windows(&self, x: &T, bias: &T) -> Result<T> {
        let [_, _, windows, width] = x.sizes()?;
        // The axis of windows is next to that of the heads, so `windows * heads` heads compute all windows at once.
        self.attend(x, windows.fixed()? * self.heads, width.divide(self.heads)?, Some(bias))
    }

    /// `(batch, length, ...)` to the same shape, split into `heads` heads of `size`.
    fn attend(&self, x: &T, heads: usize, size: Dim, bias: Option<&T>) -> Result<T> {
        let shape = x.shape();
        let &[batch, length, ..] = &shape[..] else { return x.sizes::<3>().map(|_| x.clone()) };
        let context = x.module(&self.name, || {
            let split = |layer: &Linear<T>| {
                layer.forward(x)?.reshape(&[batch, length, heads.into(), size])?.permute(&[0, 2, 1, 3])
            };
            let context = self.context(&split(&self.query)?, &split(&self.key)?, &split(&self.value)?, bias)?;
            context.permute(&[0, 2, 1, 3])?.reshape(&shape)
        })?;
        self.output.forward(&context)
    }

    fn context(&self, query: &T, key: &T, value: &T, bias: Option<&T>) -> Result<T> {
        if self.dropout.is_none() {
            return T::attention(query, key, value, bias);
        }
        self.dropout.forward(&T::attention_weights(query, key, bias)?)?.matmul(value)
    }
}
