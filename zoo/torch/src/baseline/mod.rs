//! Baselines for the benchmarks and tests: the alignment and the heads in the order of work of their originals, and training steps
//! without encoders.
//!
//! This module is not part of the interface of the crate. It lives here because it needs the crate's tensors.

mod alignment_step;
mod head_loop;
mod head_step;
mod per_caption;

pub use alignment_step::{AlignmentMethod, AlignmentStep};
pub use head_loop::HeadLoop;
pub use head_step::{HeadStep, build_head};
use per_caption::ImageShard;
pub use per_caption::PerCaption;
