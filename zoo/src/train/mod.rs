//! Training: the recipe, and what a run needs besides the model.
//!
//! Nothing here calls libtorch, so all of it is there without the `torch` feature.

mod config;

pub use config::{Precision, TrainConfig, Validation};
