//! [`Array`], an f32 tensor in pure Rust. Models run on it without libtorch.

mod axes;
mod binary;
pub mod product;
mod rows;

use std::sync::Arc;

use rayon::prelude::*;

use crate::{
    Error, Result,
    dim::Dim,
    tensor::{DeviceTensor, Tensor},
};

/// Minimum number of values per thread. Below it, starting a thread costs more than it saves.
const PARALLEL: usize = 1 << 14;

/// A tensor of f32 values in row-major order. Clones share the values.
///
/// ```
/// use laps_model::{array::Array, tensor::Tensor};
///
/// let x = Array::new(&[2, 2], vec![1.0, 2.0, 3.0, 4.0])?;
/// let row = Array::new(&[2], vec![10.0, 20.0])?;
/// assert_eq!(x.add(&row)?.values(), [11.0, 22.0, 13.0, 24.0]);
/// assert_eq!(x.matmul(&x)?.values(), [7.0, 10.0, 15.0, 22.0]);
/// # Ok::<(), laps_model::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Arc<Vec<f32>>,
}

impl Array {
    /// A tensor of `shape` from `values` in row-major order.
    ///
    /// # Errors
    /// [`Error::Operation`] if `shape` has another number of elements.
    pub fn new(shape: &[usize], values: Vec<f32>) -> Result<Self> {
        let elements = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        if elements != Some(values.len()) {
            return Err(refused(
                "array",
                format!("as many values as {shape:?} has"),
                format!("{} values", values.len()),
            ));
        }
        Ok(Self { shape: shape.to_vec(), values: Arc::new(values) })
    }

    /// Size of each axis.
    pub fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values in row-major order. They are copied only if a clone shares them.
    pub fn into_values(self) -> Vec<f32> {
        Arc::try_unwrap(self.values).unwrap_or_else(|shared| shared.to_vec())
    }

    /// The slice `range` of the first axis.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Result<Self> {
        self.narrow(0, range.start, range.len())
    }

    /// Stride of each axis, in values.
    fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        strides
    }

    fn last(&self, operation: &'static str) -> Result<usize> {
        self.shape.last().copied().ok_or_else(|| refused(operation, "an axis", "a single number"))
    }

    fn map(&self, f: impl Fn(f32) -> f32 + Send + Sync) -> Self {
        let values = self.values.par_iter().with_min_len(PARALLEL).map(|&x| f(x)).collect();
        Self { shape: self.shape.clone(), values: Arc::new(values) }
    }
}

fn refused(operation: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Operation { operation, expected: expected.into(), found: found.into() }
}

fn fixed(shape: &[Dim]) -> Result<Vec<usize>> {
    shape.iter().map(|size| size.fixed()).collect()
}

impl Tensor for Array {
    fn shape(&self) -> Vec<Dim> {
        self.shape.iter().map(|&size| size.into()).collect()
    }

    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Self> {
        Self::new(shape, values.to_vec())
    }

    fn add(&self, other: &Self) -> Result<Self> {
        binary::apply("add", self, other, |a, b| a + b)
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        binary::apply("sub", self, other, |a, b| a - b)
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        binary::apply("mul", self, other, |a, b| a * b)
    }

    fn div(&self, other: &Self) -> Result<Self> {
        binary::apply("div", self, other, |a, b| a / b)
    }

    fn affine(&self, scale: f64, shift: f64) -> Result<Self> {
        Ok(self.map(|x| x * scale as f32 + shift as f32))
    }

    fn matmul(&self, other: &Self) -> Result<Self> {
        product::matmul(self, other)
    }

    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        product::linear(self, weight, bias)
    }

    fn embedding(&self, input_ids: &Self) -> Result<Self> {
        axes::embedding(self, input_ids)
    }

    fn reshape(&self, shape: &[Dim]) -> Result<Self> {
        let shape = fixed(shape)?;
        if shape.iter().product::<usize>() != self.values.len() {
            return Err(refused("reshape", format!("as many values as {shape:?} has"), format!("{:?}", self.shape)));
        }
        Ok(Self { shape, values: Arc::clone(&self.values) })
    }

    fn permute(&self, order: &[usize]) -> Result<Self> {
        axes::permute(self, order)
    }

    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        axes::narrow(self, axis, start, length)
    }

    fn select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        axes::select(self, axis, indices)
    }

    fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        axes::concat(parts, axis)
    }

    fn expand(&self, shape: &[Dim]) -> Result<Self> {
        binary::expand(self, &fixed(shape)?)
    }

    fn softmax(&self) -> Result<Self> {
        rows::softmax(self)
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f64) -> Result<Self> {
        rows::layer_norm(self, weight, bias, eps)
    }

    fn gelu(&self) -> Result<Self> {
        Ok(self.map(|x| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))))
    }

    fn exp(&self) -> Result<Self> {
        Ok(self.map(libm::expf))
    }

    fn ln(&self) -> Result<Self> {
        Ok(self.map(libm::logf))
    }

    fn sqrt(&self) -> Result<Self> {
        Ok(self.map(f32::sqrt))
    }

    fn tanh(&self) -> Result<Self> {
        Ok(self.map(libm::tanhf))
    }

    fn sort_descending(&self, axis: usize) -> Result<Self> {
        rows::sort_descending(self, axis)
    }

    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        Ok(self.map(|x| x.max(x * slope as f32)))
    }

    fn normalize(&self, eps: f64) -> Result<Self> {
        rows::normalize(self, eps)
    }

    fn sum(&self, axis: usize) -> Result<Self> {
        rows::fold("sum", self, axis, 0.0, |all, x| all + x)
    }

    fn max(&self, axis: usize) -> Result<Self> {
        rows::fold("max", self, axis, f32::NEG_INFINITY, f32::max)
    }

    fn cumulative_sum(&self) -> Result<Self> {
        rows::cumulative_sum(self)
    }

    fn top_k_mask(&self, count: usize) -> Result<Self> {
        rows::top_k_mask(self, count)
    }
}

impl DeviceTensor for Array {
    type Device = ();

    fn upload(array: &Array, (): &()) -> Result<Self> {
        Ok(array.clone())
    }

    fn download(&self) -> Result<Array> {
        Ok(self.clone())
    }
}
