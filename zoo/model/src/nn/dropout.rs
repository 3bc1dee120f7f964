//! Dropout and drop path, active during training only.

use crate::{
    Result,
    params::{Mode, ParamPath},
    tensor::Tensor,
};

/// Dropout of single values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    share: f64,
}

impl Dropout {
    /// No dropout.
    pub const NONE: Self = Self { share: 0.0 };

    /// Dropout with the probability of the model at `path`.
    pub fn new<T>(path: &ParamPath<T>) -> Self {
        match path.mode() {
            Mode::Evaluation => Self::NONE,
            Mode::Training(regularization) => Self { share: regularization.dropout },
        }
    }

    /// Dropout of the head at `path`, with the probability `share` of its original unless the mode has another.
    pub fn of_head<T>(share: f64, path: &ParamPath<T>) -> Self {
        match path.mode() {
            Mode::Evaluation => Self::NONE,
            Mode::Training(regularization) => Self { share: regularization.head_dropout.unwrap_or(share) },
        }
    }

    /// Whether the probability is 0.
    pub fn is_none(self) -> bool {
        self.share == 0.0
    }

    /// Any shape to the same shape.
    pub fn forward<T: Tensor>(self, x: &T) -> Result<T> {
        if self.is_none() { Ok(x.clone()) } else { x.dropout(self.share) }
    }
}

/// Drops a residual branch for whole samples (stochastic depth).
///
/// Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropPath {
    share: f64,
}

impl DropPath {
    /// Drop path of block `index` of `blocks`. The probability rises from 0 at the first block to that of the model at the
    /// last.
    pub fn new<T>(index: usize, blocks: usize, path: &ParamPath<T>) -> Self {
        let last = blocks.saturating_sub(1).max(1);
        match path.mode() {
            Mode::Evaluation => Self { share: 0.0 },
            Mode::Training(regularization) => Self { share: regularization.drop_path * index as f64 / last as f64 },
        }
    }

    /// `(batch, ...)` to the same shape.
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
