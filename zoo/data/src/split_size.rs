//! Sizes of data splits.

use serde::{Deserialize, Serialize};

/// How much a split holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSize {
    /// Different images.
    pub images: usize,
    /// Captions, all images together.
    pub captions: usize,
}
