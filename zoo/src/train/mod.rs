//! Training, as far as it needs no native library: configuration, order of the samples, schedule, and the run folder.

mod config;
mod error;
mod events;
mod log;
mod observer;
mod run_folder;
mod sampler;

pub use config::{Augmentation, TrainConfig};
pub use error::TrainError;
pub use events::EventFile;
pub use log::RunLog;
pub use observer::{EpochLine, Observer, StepLine};
pub use run_folder::{Files, RunFolder};
pub use sampler::Sampler;
