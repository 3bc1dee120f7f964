//! What is left out at random while a model trains.

use crate::{
    Result,
    params::{Mode, Path},
    tensor::Tensor,
};

/// Leaves out single values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    share: f64,
}

impl Dropout {
    /// Nothing is left out.
    pub const NONE: Self = Self { share: 0.0 };

    /// The share that the model at `path` is built with.
    pub fn new<T>(path: &Path<T>) -> Self {
        match path.mode() {
            Mode::Evaluation => Self::NONE,
            Mode::Training(regularization) => Self { share: regularization.dropout },
        }
    }

    /// Whether it does nothing.
    pub fn is_none(self) -> bool {
        self.share == 0.0
    }

    /// Any shape to the same.
    pub fn forward<T: Tensor>(self, x: &T) -> Result<T> {
        if self.is_none() { Ok(x.clone()) } else { x.dropout(self.share) }
    }
}

/// Leaves out whole samples of a branch beside a residual connection.
///
/// Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropPath {
    share: f64,
}

impl DropPath {
    /// For block `index` of `blocks`: the share rises from 0 at the first to that of the model at the last.
    pub fn new<T>(index: usize, blocks: usize, path: &Path<T>) -> Self {
        let last = blocks.saturating_sub(1).max(1);
        match path.mode() {
            Mode::Evaluation => Self { share: 0.0 },
            Mode::Training(regularization) => Self { share: regularization.drop_path * index as f64 / last as f64 },
        }
    }

    /// `(batch, ...)` to the same.
    pub fn forward<T: Tensor>(self, x: &T) -> Result<T> {
        if self.share == 0.0 {
            return Ok(x.clone());
        }
        let mut shape = vec![1; x.shape().len()];
        if let (Some(first), Some(batch)) = (shape.first_mut(), x.shape().first()) {
            *first = batch.fixed()?;
        }
        let ones = vec![1.0; shape.iter().product()];
        x.mul(&x.constant(&ones, &shape)?.dropout(self.share)?)
    }
}
