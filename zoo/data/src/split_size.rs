//! Sizes of data splits.

use serde::{Deserialize, Serialize};

/// Number of images and captions of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSize {
    /// Number of distinct images.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
}
