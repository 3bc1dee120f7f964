//! Sizes of the alignment.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use laps_model::models::config::ModelConfig;

/// Slope of the leaky ReLU below zero.
pub(crate) const LEAKY_SLOPE: f32 = laps_model::models::alignment::LEAKY_SLOPE as f32;

/// A squared norm from products of patches has lost too many digits if it is below the sum of its squared terms divided by
/// this.
pub const CANCELLATION: f32 = 16.0;

/// Sizes of the alignment of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignmentConfig {
    /// Spatial patches of an image, the class token not among them.
    pub patches: usize,
    /// Whether a class token comes before the patches.
    pub has_class_token: bool,
    /// Patches that are kept for a caption.
    pub kept: usize,
    /// Groups that the kept patches are merged into.
    pub groups: usize,
    /// Width of an embedding.
    pub width: usize,
}

impl AlignmentConfig {
    /// The sizes of `model`.
    pub fn of(model: &ModelConfig) -> Self {
        Self {
            patches: model.image.num_patches(),
            has_class_token: model.image.has_class_token(),
            kept: model.kept(),
            groups: model.groups(),
            width: model.embed_size,
        }
    }

    /// Tokens of an image: the patches, and the class token where there is one.
    pub fn tokens(&self) -> usize {
        self.patches + usize::from(self.has_class_token)
    }

    /// Tokens of an image that words are compared with: class token, groups, and the fused patch.
    pub fn aligned_tokens(&self) -> usize {
        self.groups + usize::from(self.has_class_token) + 1
    }

    /// Checks that the sizes describe an alignment.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) that names the key.
    pub fn check(&self) -> Result<()> {
        let at_least_one = [("patches", self.patches), ("groups", self.groups), ("embed_size", self.width)];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(config(key, "at least 1".to_owned(), value));
            }
        }
        if self.kept == 0 || self.kept > self.patches {
            return Err(config("kept", format!("from 1 to the {} patches of an image", self.patches), self.kept));
        }
        if self.patches > usize::from(u16::MAX) {
            return Err(config("patches", format!("at most {}", u16::MAX), self.patches));
        }
        Ok(())
    }
}

fn config(key: &str, expected: String, found: usize) -> Error {
    Error::Config { key: key.to_owned(), expected, found: found.to_string() }
}
