//! The operations that models are written in.

use crate::{Error, Result, dim::Dim};

/// What is added to an attention logit to take it out of the softmax: exp of its negative is exactly 0 in f32, and it is
/// finite in f16.
pub const PADDING: f64 = 30000.0;

/// A tensor of f32 values (token identifiers are whole numbers in it), on some device or in some graph.
///
/// Axes count from 0. Binary operations broadcast as NumPy does. No operation panics.
pub trait Tensor: Clone + Sized {
    /// Size of each axis.
    fn shape(&self) -> Vec<Dim>;

    /// A constant of `shape` on the same device, or in the same graph.
    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Self>;

    /// Sum of both.
    fn add(&self, other: &Self) -> Result<Self>;
    /// Difference.
    fn sub(&self, other: &Self) -> Result<Self>;
    /// Product, element by element.
    fn mul(&self, other: &Self) -> Result<Self>;
    /// Quotient.
    fn div(&self, other: &Self) -> Result<Self>;
    /// `self * scale + shift`.
    fn affine(&self, scale: f64, shift: f64) -> Result<Self>;

    /// `(..., m, k)` by `(..., k, n)` to `(..., m, n)`, the leading axes broadcast.
    fn matmul(&self, other: &Self) -> Result<Self>;
    /// `(..., in)` to `(..., out)` with a weight of `(out, in)` and a bias of `(out)`.
    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self>;
    /// Rows of this table of `(rows, width)` by identifiers of any shape, to `(identifiers..., width)`.
    fn embedding(&self, identifiers: &Self) -> Result<Self>;

    /// The same elements in another shape.
    fn reshape(&self, shape: &[Dim]) -> Result<Self>;
    /// Axis `i` of the result is axis `order[i]` of this.
    fn permute(&self, order: &[usize]) -> Result<Self>;
    /// `length` entries from `start` along `axis`.
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self>;
    /// The entries `indices` along `axis`.
    fn select(&self, axis: usize, indices: &[usize]) -> Result<Self>;
    /// One after another along `axis`.
    fn concatenate(parts: &[&Self], axis: usize) -> Result<Self>;
    /// The same values, repeated to `shape` as broadcasting does it.
    fn expand(&self, shape: &[Dim]) -> Result<Self>;

    /// Softmax along the last axis.
    fn softmax(&self) -> Result<Self>;
    /// Layer normalisation along the last axis.
    fn layer_norm(&self, weight: &Self, bias: &Self, epsilon: f64) -> Result<Self>;
    /// GELU by the error function.
    fn gelu(&self) -> Result<Self>;
    /// `max(x, slope * x)` for a slope below 1.
    fn leaky_relu(&self, slope: f64) -> Result<Self>;
    /// `x / max(|x|, epsilon)` with the Euclidean norm along the last axis.
    fn normalize(&self, epsilon: f64) -> Result<Self>;
    /// Sum along `axis`, which stays with size 1.
    fn sum(&self, axis: usize) -> Result<Self>;
    /// Largest along `axis`, which stays with size 1.
    fn max(&self, axis: usize) -> Result<Self>;
    /// Running sum along the last axis.
    fn cumulative_sum(&self) -> Result<Self>;
    /// 1 at the `count` largest entries of the last axis, 0 elsewhere.
    fn top_mask(&self, count: usize) -> Result<Self>;

    /// Runs `body`, the work of the module `name` (as checkpoints name it) on this tensor. A recorder names after it what is
    /// recorded, and faults that happen in it; tensors that hold values have nothing to do.
    fn module<R>(&self, name: &str, body: impl FnOnce() -> Result<R>) -> Result<R> {
        let _ = name;
        body()
    }

    /// The same values, through which no gradient passes. Tensors without gradients have nothing to do.
    fn detach(&self) -> Result<Self> {
        Ok(self.clone())
    }

    /// 0 in the place of a random `share` of the values, the others divided by what remains. Only tensors that train have it.
    fn dropout(&self, share: f64) -> Result<Self> {
        Err(Error::Operation {
            operation: "dropout",
            expected: "a tensor that trains".to_owned(),
            found: format!("one that evaluates, and a share of {share}"),
        })
    }

    /// The same values in the type of the numbers of `other`; where all tensors have one type they are that already.
    fn in_type_of(&self, _other: &Self) -> Result<Self> {
        Ok(self.clone())
    }

    /// Weights of scaled dot-product attention: `(..., heads, length, size)` twice to `(..., heads, length, length)`,
    /// `bias` added to the logits.
    fn attention_weights(query: &Self, key: &Self, bias: Option<&Self>) -> Result<Self> {
        let [rank, size] = [query.shape().len(), last(query)?.fixed()?];
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 2, rank - 1);
        let logits = query.affine((size as f64).powf(-0.5), 0.0)?.matmul(&key.permute(&order)?)?;
        match bias {
            Some(bias) => logits.add(&bias.in_type_of(&logits)?)?.softmax(),
            None => logits.softmax(),
        }
    }

    /// Scaled dot-product attention: `(..., heads, length, size)` thrice to the same, `bias` added to the logits.
    fn attention(query: &Self, key: &Self, value: &Self, bias: Option<&Self>) -> Result<Self> {
        Self::attention_weights(query, key, bias)?.matmul(value)
    }

    /// `(batch, length)` with 1 for a token and 0 for padding, to an attention bias `(batch, 1, 1, length)`.
    fn padding_bias(&self) -> Result<Self> {
        let [batch, length] = self.sizes()?;
        self.affine(PADDING, -PADDING)?.reshape(&[batch, 1.into(), 1.into(), length])
    }

    /// Each patch of `patch` x `patch` pixels through one linear layer: `(batch, channels, height, width)` and a weight of
    /// `(out, channels, patch, patch)` to `(batch, patches, out)`, row by row.
    ///
    /// A product of matrices and not a convolution: cuDNN's convolutions round to TF32 unless told otherwise.
    fn embed_patches(&self, weight: &Self, bias: &Self, patch: usize) -> Result<Self> {
        let [batch, channels, height, width] = self.sizes()?;
        let [out, ..] = weight.sizes::<4>()?;
        let (down, across) = (height.divide(patch)?, width.divide(patch)?);
        let length = channels.times(patch * patch);
        let x = self.reshape(&[batch, channels, down, patch.into(), across, patch.into()])?;
        let x = x.permute(&[0, 2, 4, 1, 3, 5])?.reshape(&[batch, down.times(across.fixed()?), length])?;
        x.linear(&weight.reshape(&[out, length])?, Some(bias))
    }

    /// Mean along `axis`, which stays with size 1; its size has to be a number.
    fn mean(&self, axis: usize) -> Result<Self> {
        let size = axis_size(self, axis)?.fixed()?;
        self.sum(axis)?.affine(1.0 / size as f64, 0.0)
    }

    /// Shifts entries by `shift` places towards the front of `axis`; those that fall off come in at its end.
    fn roll(&self, axis: usize, shift: usize) -> Result<Self> {
        let size = axis_size(self, axis)?.fixed()?;
        let shift = shift % size.max(1);
        if shift == 0 {
            return Ok(self.clone());
        }
        Self::concatenate(&[&self.narrow(axis, shift, size - shift)?, &self.narrow(axis, 0, shift)?], axis)
    }

    /// The sizes of a tensor with `N` axes.
    fn sizes<const N: usize>(&self) -> Result<[Dim; N]> {
        let shape = self.shape();
        <[Dim; N]>::try_from(shape.as_slice()).map_err(|_| Error::Operation {
            operation: "shape",
            expected: format!("{N} axes"),
            found: format!("{shape:?}"),
        })
    }
}

fn last<T: Tensor>(tensor: &T) -> Result<Dim> {
    axis_size(tensor, tensor.shape().len().wrapping_sub(1))
}

fn axis_size<T: Tensor>(tensor: &T, axis: usize) -> Result<Dim> {
    let shape = tensor.shape();
    shape.get(axis).copied().ok_or_else(|| Error::Operation {
        operation: "shape",
        expected: format!("an axis {axis}"),
        found: format!("{shape:?}"),
    })
}

/// A tensor that holds its values: it can be made from and read back into an [`Array`](crate::array::Array).
pub trait Eager: Tensor {
    /// Where the values live.
    type Device: Clone;

    /// Copies `array` to `device`.
    fn upload(array: &crate::array::Array, device: &Self::Device) -> Result<Self>;
    /// Copies the values back.
    fn download(&self) -> Result<crate::array::Array>;
}
