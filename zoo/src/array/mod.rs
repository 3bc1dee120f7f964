//! A small f32 tensor in pure Rust.

use std::sync::Arc;

use crate::{Error, Result};

/// Values in row-major order; cloning shares them.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Arc<Vec<f32>>,
}

impl Array {
    /// `values` in row-major order as a tensor of `shape`.
    pub fn new(shape: &[usize], values: Vec<f32>) -> Result<Self> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::Operation {
                operation: "array",
                expected: format!("{} values for {shape:?}", shape.iter().product::<usize>()),
                found: format!("{} values", values.len()),
            });
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
}
