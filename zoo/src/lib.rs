//! LAPS image-text retrieval: open a model, embed images and captions, and score them.
//!
//! ```no_run
//! # fn main() -> laps::Result<()> {
//! let model = laps::Model::builder("shapes_vit").open()?;
//! let scores = model.score("photo.png", &["a red circle above a blue square", "a dog"])?;
//! println!("{scores:?}");
//! # Ok(())
//! # }
//! ```

mod backend;
mod checkpoint;
pub mod embedded;
mod engine;
mod error;
mod libtorch;
mod model;
mod observer;
mod onnx;
mod rust;
mod select;
mod train;
mod vocabulary;

pub use backend::{Backend, Backends};
pub use checkpoint::open_checkpoint;
pub use engine::{EngineChoice, EngineUsed};
pub use error::{Error, Result, hint};
pub use libtorch::{Libtorch, LibtorchInfo, StepBenchmark, TrainingStep};
pub use model::{Image, Model, ModelBuilder};
pub use observer::{EpochLine, Observer, StepLine};
pub use onnx::OnnxBackend;
pub use rust::RustBackend;
pub use select::{BackendRequest, SelectedBackend, Workload};
pub use train::{InitialWeights, TrainRequest, Trained};
pub use vocabulary::Vocabulary;
