//! Training: the recipe, and what a run needs besides the model.
//!
//! Nothing here calls libtorch, so all of it is there without the `torch` feature.

mod config;
mod error;
mod sampler;
mod schedule;

pub use config::{Precision, TrainConfig, Validation};
pub use error::TrainError;
pub use sampler::{EpochOrder, Sampler};
pub use schedule::{Negatives, Schedule};
