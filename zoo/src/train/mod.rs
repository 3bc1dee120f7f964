//! Training: the recipe, and what a run needs besides the model.
//!
//! Nothing here calls libtorch, so all of it but the gradient of the alignment, which only training on libtorch needs, is
//! there without the `torch` feature.

#[cfg(feature = "torch")]
pub(crate) mod alignment;
mod config;
mod error;
mod events;
mod log;
mod observer;
mod run_folder;
mod sampler;
mod schedule;

pub use config::{Precision, TrainConfig, Validation};
pub use error::TrainError;
pub use events::EventFile;
pub use log::RunLog;
pub use observer::{EpochLine, Observer, StepLine};
pub use run_folder::{Files, RunFolder};
pub use sampler::{EpochOrder, Sampler};
pub use schedule::{Negatives, Schedule};
