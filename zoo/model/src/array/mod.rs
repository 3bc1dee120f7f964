//! A small f32 tensor in pure Rust: models run on it where there is no libtorch, and tests need nothing else.

mod axes;
mod binary;
pub mod product;
mod rows;

use std::sync::Arc;

use rayon::prelude::*;

use crate::{
    Error, Result,
    dim::Dim,
    tensor::{Eager, Tensor},
};

/// Fewer values than this are not worth another thread.
const PARALLEL: usize = 1 << 14;

/// Values in row-major order; cloning shares them.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Arc<Vec<f32>>,
}

impl Array {
    /// `values` in row-major order as a tensor of `shape`.
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

    /// The values in row-major order; copied only if another clone is alive.
    pub fn into_values(self) -> Vec<f32> {
        Arc::try_unwrap(self.values).unwrap_or_else(|shared| shared.to_vec())
    }

    /// The entries `range` of the first axis.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Result<Self> {
        self.narrow(0, range.start, range.len())
    }

    /// Distance between neighbours along each axis.
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

    fn embedding(&self, identifiers: &Self) -> Result<Self> {
        axes::embedding(self, identifiers)
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

    fn concatenate(parts: &[&Self], axis: usize) -> Result<Self> {
        axes::concatenate(parts, axis)
    }

    fn expand(&self, shape: &[Dim]) -> Result<Self> {
        binary::expand(self, &fixed(shape)?)
    }

    fn softmax(&self) -> Result<Self> {
        rows::softmax(self)
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, epsilon: f64) -> Result<Self> {
        rows::layer_norm(self, weight, bias, epsilon)
    }

    fn gelu(&self) -> Result<Self> {
        Ok(self.map(|x| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))))
    }

    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        Ok(self.map(|x| x.max(x * slope as f32)))
    }

    fn normalize(&self, epsilon: f64) -> Result<Self> {
        rows::normalize(self, epsilon)
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

    fn top_mask(&self, count: usize) -> Result<Self> {
        rows::top_mask(self, count)
    }
}

impl Eager for Array {
    type Device = ();

    fn upload(array: &Array, (): &()) -> Result<Self> {
        Ok(array.clone())
    }

    fn download(&self) -> Result<Array> {
        Ok(self.clone())
    }
}
