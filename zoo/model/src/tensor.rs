//! The [`Tensor`] trait: the operations that models are written in.

use crate::{Error, Result, dim::Dim};

/// Subtracted from a logit to mask it out of a softmax: `exp(-30000)` is exactly 0 in f32, and the value is finite in f16.
pub const MASK_LOGIT: f64 = 30000.0;

/// A tensor of f32 values on a device, or a node of a graph. Token ids are stored as whole numbers.
///
/// Axes count from 0. Binary operations broadcast as in NumPy. No operation panics.
///
/// Models are generic over this trait. It is implemented by [`Array`](crate::array::Array), by the libtorch tensor, and by
/// the recorder of ONNX graphs.
pub trait Tensor: Clone + Sized {
    /// Size of each axis.
    fn shape(&self) -> Vec<Dim>;

    /// A constant of `shape` on the same device or in the same graph.
    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Self>;

    /// Sum.
    fn add(&self, other: &Self) -> Result<Self>;
    /// Difference.
    fn sub(&self, other: &Self) -> Result<Self>;
    /// Element-wise product.
    fn mul(&self, other: &Self) -> Result<Self>;
    /// Quotient.
    fn div(&self, other: &Self) -> Result<Self>;
    /// `self * scale + shift`.
    fn affine(&self, scale: f64, shift: f64) -> Result<Self>;

    /// Matrix product: `(..., m, k)` and `(..., k, n)` to `(..., m, n)`. The leading axes broadcast.
    fn matmul(&self, other: &Self) -> Result<Self>;
    /// The products of each matrix of this with each matrix of `other`: `(b, m, k)` and `(a, k, n)` to `(a, b, m, n)`.
    ///
    /// One product a matrix of `other`: a product that broadcasts would copy both. The recorder, whose sizes are symbols,
    /// broadcasts.
    fn matmul_each(&self, other: &Self) -> Result<Self> {
        let [count, rows, inner] = self.sizes()?;
        let [others, _, columns] = other.sizes()?;
        let stacked = self.reshape(&[count.times(rows.fixed()?), inner])?;
        stacked.matmul(other)?.reshape(&[others, count, rows, columns])
    }
    /// The products of all matrices of `a` with its one of `other`: `(a, b, m, k)` and `(a, k, n)` to `(a, b, m, n)`, as
    /// [`matmul_each`](Self::matmul_each) without copies.
    fn matmul_shared(&self, other: &Self) -> Result<Self> {
        let [outer, count, rows, inner] = self.sizes()?;
        let [_, _, columns] = other.sizes()?;
        let stacked = self.reshape(&[outer, count.times(rows.fixed()?), inner])?;
        stacked.matmul(other)?.reshape(&[outer, count, rows, columns])
    }
    /// `x W^T + b`: `(..., in)` to `(..., out)`, with `weight` of `(out, in)` and `bias` of `(out)`.
    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self>;
    /// Looks up rows: this table `(rows, width)` and ids of any shape `(...)` to `(..., width)`.
    fn embedding(&self, input_ids: &Self) -> Result<Self>;

    /// The same elements in another shape.
    fn reshape(&self, shape: &[Dim]) -> Result<Self>;
    /// Axis `i` of the result is axis `order[i]` of this.
    fn permute(&self, order: &[usize]) -> Result<Self>;
    /// `length` entries from `start` along `axis`.
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self>;
    /// The entries `indices` along `axis`.
    fn select(&self, axis: usize, indices: &[usize]) -> Result<Self>;
    /// Joins tensors along `axis`.
    fn concat(parts: &[&Self], axis: usize) -> Result<Self>;
    /// Broadcasts to `shape`.
    fn expand(&self, shape: &[Dim]) -> Result<Self>;

    /// Softmax along the last axis.
    fn softmax(&self) -> Result<Self>;
    /// Layer normalisation along the last axis, with the weight and bias of `(width)`.
    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f64) -> Result<Self>;
    /// GELU, computed with the error function.
    fn gelu(&self) -> Result<Self>;
    /// `exp(x)`.
    fn exp(&self) -> Result<Self>;
    /// The natural logarithm of `x`.
    fn ln(&self) -> Result<Self>;
    /// The square root of `x`.
    fn sqrt(&self) -> Result<Self>;
    /// The hyperbolic tangent of `x`.
    fn tanh(&self) -> Result<Self>;
    /// `1 / (1 + exp(-x))`, computed as `(tanh(x / 2) + 1) / 2`, which cannot overflow.
    fn sigmoid(&self) -> Result<Self> {
        self.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)
    }
    /// `x * sigmoid(1.702 x)`, OpenAI's approximation of GELU.
    fn quick_gelu(&self) -> Result<Self> {
        self.mul(&self.affine(1.702, 0.0)?.sigmoid()?)
    }
    /// The values along `axis` in descending order, each line of the other axes on its own.
    fn sort_descending(&self, axis: usize) -> Result<Self>;
    /// `max(x, slope * x)` for a slope below 1.
    fn leaky_relu(&self, slope: f64) -> Result<Self>;
    /// `x / max(|x|, eps)` with the Euclidean norm along the last axis.
    fn normalize(&self, eps: f64) -> Result<Self>;
    /// Sum along `axis`, which keeps size 1.
    fn sum(&self, axis: usize) -> Result<Self>;
    /// Maximum along `axis`, which keeps size 1.
    fn max(&self, axis: usize) -> Result<Self>;
    /// Cumulative sum along the last axis.
    fn cumulative_sum(&self) -> Result<Self>;
    /// 1 at the `count` largest entries along the last axis, 0 elsewhere.
    fn top_k_mask(&self, count: usize) -> Result<Self>;

    /// Runs `body`, the computation of the module `name` (as in checkpoints) on this tensor. A recorder uses the name for the
    /// nodes and errors of `body`. Other tensors ignore it.
    fn module<R>(&self, name: &str, body: impl FnOnce() -> Result<R>) -> Result<R> {
        let _ = name;
        body()
    }

    /// The same values without a gradient. Tensors without gradients return a clone.
    fn detach(&self) -> Result<Self> {
        Ok(self.clone())
    }

    /// Sets each value to 0 with probability `share` and divides the others by `1 - share`.
    ///
    /// # Errors
    /// [`Error::Operation`] for tensors that cannot be trained.
    fn dropout(&self, share: f64) -> Result<Self> {
        Err(Error::Operation {
            operation: "dropout",
            expected: "a tensor that can be trained".to_owned(),
            found: format!("a tensor for evaluation, and a share of {share}"),
        })
    }

    /// Moves the values towards those of `target` by the share `weight` of the distance, in place and without a gradient.
    ///
    /// # Errors
    /// [`Error::Operation`] for tensors that cannot be trained.
    fn lerp_in_place(&self, _target: &Self, weight: f64) -> Result<()> {
        Err(Error::Operation {
            operation: "lerp",
            expected: "a tensor that can be trained".to_owned(),
            found: format!("a tensor for evaluation, and a weight of {weight}"),
        })
    }

    /// Casts to the dtype of `other`. Tensors with a single dtype return a clone.
    fn cast_like(&self, _other: &Self) -> Result<Self> {
        Ok(self.clone())
    }

    /// Weights of scaled dot-product attention: two of `(..., heads, length, size)` to `(..., heads, length, length)`. `bias`
    /// is added to the logits.
    fn attention_weights(query: &Self, key: &Self, bias: Option<&Self>) -> Result<Self> {
        let (rank, size) = (query.shape().len(), last_size(query)?.fixed()?);
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 2, rank - 1);
        let logits = query.affine((size as f64).powf(-0.5), 0.0)?.matmul(&key.permute(&order)?)?;
        match bias {
            Some(bias) => logits.add(&bias.cast_like(&logits)?)?.softmax(),
            None => logits.softmax(),
        }
    }

    /// Scaled dot-product attention: three of `(..., heads, length, size)` to the same shape. `bias` is added to the logits.
    fn attention(query: &Self, key: &Self, value: &Self, bias: Option<&Self>) -> Result<Self> {
        Self::attention_weights(query, key, bias)?.matmul(value)
    }

    /// An attention mask `(batch, length)`, 1 for a token and 0 for padding, to an attention bias `(batch, 1, 1, length)`.
    fn padding_bias(&self) -> Result<Self> {
        let [batch, length] = self.sizes()?;
        self.affine(MASK_LOGIT, -MASK_LOGIT)?.reshape(&[batch, 1.into(), 1.into(), length])
    }

    /// Embeds each patch of `patch` x `patch` pixels with one linear layer: `(batch, channels, height, width)` and a weight
    /// of `(out, channels, patch, patch)` to `(batch, patches, out)`, in row-major order of the patches.
    ///
    /// It is a matrix product and not a convolution, because cuDNN's convolutions round to TF32 by default.
    fn embed_patches(&self, weight: &Self, bias: Option<&Self>, patch: usize) -> Result<Self> {
        let [batch, channels, height, width] = self.sizes()?;
        let [out, ..] = weight.sizes::<4>()?;
        let (down, across) = (height.divide(patch)?, width.divide(patch)?);
        let length = channels.times(patch * patch);
        let x = self.reshape(&[batch, channels, down, patch.into(), across, patch.into()])?;
        let x = x.permute(&[0, 2, 4, 1, 3, 5])?.reshape(&[batch, down.times(across.fixed()?), length])?;
        x.linear(&weight.reshape(&[out, length])?, bias)
    }

    /// Mean along `axis`, which keeps size 1. Its size must be a number.
    fn mean(&self, axis: usize) -> Result<Self> {
        let size = axis_size(self, axis)?.fixed()?;
        self.sum(axis)?.affine(1.0 / size as f64, 0.0)
    }

    /// Rotates `axis` by `shift` entries towards its start, as `torch.roll` with `-shift`.
    fn roll(&self, axis: usize, shift: usize) -> Result<Self> {
        let size = axis_size(self, axis)?.fixed()?;
        let shift = shift % size.max(1);
        if shift == 0 {
            return Ok(self.clone());
        }
        Self::concat(&[&self.narrow(axis, shift, size - shift)?, &self.narrow(axis, 0, shift)?], axis)
    }

    /// The shape of a tensor with `N` axes.
    ///
    /// # Errors
    /// [`Error::Operation`] if it has another number of axes.
    fn sizes<const N: usize>(&self) -> Result<[Dim; N]> {
        let shape = self.shape();
        <[Dim; N]>::try_from(shape.as_slice()).map_err(|_| Error::Operation {
            operation: "shape",
            expected: format!("{N} axes"),
            found: format!("{shape:?}"),
        })
    }
}

fn last_size<T: Tensor>(tensor: &T) -> Result<Dim> {
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

/// A tensor whose values are in the memory of a device. It is uploaded from and downloaded to an
/// [`Array`](crate::array::Array).
pub trait DeviceTensor: Tensor {
    /// The device.
    type Device: Clone;

    /// Copies `array` to `device`.
    fn upload(array: &crate::array::Array, device: &Self::Device) -> Result<Self>;
    /// Copies the values to the CPU.
    fn download(&self) -> Result<crate::array::Array>;
}
