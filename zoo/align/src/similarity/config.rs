//! Sizes of the alignment.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use laps_model::models::config::ModelConfig;

/// Slope of the leaky ReLU for negative cosines.
pub(crate) const LEAKY_SLOPE: f32 = laps_model::models::alignment::LEAKY_SLOPE as f32;

/// A squared norm that is computed from products of patches has lost too many digits if it is below the sum of its squared
/// terms divided by this.
pub const CANCELLATION: f32 = 16.0;

/// Below this squared norm, the squared factors of a group underflow in f32.
pub const MIN_SQUARED_NORM: f32 = f32::MIN_POSITIVE * 1e8;

/// Sizes of the alignment of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignmentConfig {
    /// Number of patches of an image, without the class token.
    pub patches: usize,
    /// Whether the first token of an image is a class token.
    pub has_class_token: bool,
    /// Number of patches that are kept for a caption.
    pub kept: usize,
    /// Number of groups that the kept patches are aggregated into.
    pub groups: usize,
    /// Size of an embedding.
    pub width: usize,
}

impl AlignmentConfig {
    /// The sizes of a model.
    pub fn of(model: &ModelConfig) -> Self {
        Self {
            patches: model.image.num_patches(),
            has_class_token: model.image.has_class_token(),
            kept: model.kept(),
            groups: model.groups(),
            width: model.embed_size,
        }
    }

    /// Number of tokens of an image: the patches, and the class token if there is one.
    pub fn tokens(&self) -> usize {
        self.patches + usize::from(self.has_class_token)
    }

    /// Number of tokens that the words are compared with: the groups, the fused patch, and the class token if there is one.
    pub fn aligned_tokens(&self) -> usize {
        self.groups + usize::from(self.has_class_token) + 1
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the invalid key.
    pub fn check(&self) -> Result<()> {
        let at_least_one = [("patches", self.patches), ("groups", self.groups), ("embed_size", self.width)];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(invalid_config(key, "at least 1".to_owned(), value));
            }
        }
        if self.kept == 0 || self.kept > self.patches {
            let expected = format!("from 1 to the {} patches of an image", self.patches);
            return Err(invalid_config("kept", expected, self.kept));
        }
        if self.patches > usize::from(u16::MAX) {
            return Err(invalid_config("patches", format!("at most {}", u16::MAX), self.patches));
        }
        Ok(())
    }
}

fn invalid_config(key: &str, expected: String, found: usize) -> Error {
    Error::Config { key: key.to_owned(), expected, found: found.to_string() }
}
