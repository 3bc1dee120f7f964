//! Baselines for the benchmarks and tests: the alignment in the authors' order of work.
//!
//! This module is not part of the interface of the crate. It lives here because it needs the crate's tensors.

mod alignment_step;
mod per_caption;

pub use alignment_step::{AlignmentMethod, AlignmentStep};
use per_caption::ImageShard;
pub use per_caption::PerCaption;
