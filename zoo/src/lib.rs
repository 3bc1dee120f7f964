//! LAPS image-text retrieval: open a model, embed images and captions, score them, search with them.
//!
//! [`Model::builder`] opens a built-in entry by name or an entry file by path. The entries `shapes_vit` and `shapes_swin`
//! need no file: their checkpoints are part of this crate.
//!
//! ```
//! use laps::{Model, data::image::RgbImage};
//!
//! # fn main() -> laps::Result<()> {
//! let model = Model::builder("shapes_vit").open()?;
//! // A path works too: model.score("photo.png", ...)
//! let grey = RgbImage::new(60, 60, vec![127; 60 * 60 * 3]).expect("3 bytes a pixel");
//! let scores = model.score(grey, &["a red circle above a blue square", "a dog"])?;
//! assert_eq!(scores.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//! - [`Model`]: embeddings, similarities, indexes and search with one model.
//! - [`Backend`], [`Backends`], [`BackendRequest`]: what computes the embeddings. The pure-Rust tensor is always there, ONNX
//!   Runtime if its library is found, libtorch in programs that link `laps-torch` and pass it in.
//! - [`hub`]: the registry of entries, checkpoints, the cache and downloads.
//! - [`data`]: images, tokenizers and caption sets.
//! - [`align`]: the exact similarity engine, ranks and recalls.
//! - [`search`]: index files.
//! - [`onnx`]: graphs and ONNX Runtime sessions.
//! - [`TrainRequest`] and [`Libtorch`]: training, which `laps-torch` implements.

mod auto_backend;
mod backend;
mod checkpoint;
pub mod embedded;
mod engine;
mod error;
mod explain;
mod explanation_document;
mod libtorch;
mod model;
mod observer;
mod onnx_backend;
mod process_group;
mod rank_group;
mod rust_backend;
mod select;
pub mod sources;
mod train;
mod vocabulary;

pub use laps_align as align;
pub use laps_data as data;
pub use laps_hub as hub;
pub use laps_model::{array::Array, encoder::Device};
pub use laps_onnx as onnx;
pub use laps_search as search;

pub use backend::{Backend, Backends};
pub use checkpoint::open_checkpoint;
pub use engine::{EngineChoice, EngineUsed};
pub use error::{Error, Result, describe, hint};
pub use explain::ExplainedPair;
pub use explanation_document::{ExplanationDocument, PatchDocument, TokenDocument, WordDocument};
pub use libtorch::{Libtorch, LibtorchInfo, StepBenchmark, TrainingStep};
pub use model::{Image, Model, ModelBuilder};
pub use observer::{EpochLine, Observer, StepLine, Timing};
pub use onnx_backend::OnnxBackend;
pub use process_group::{CommBackend, GradientOverlap, ProcessGroup};
pub use rank_group::{MatrixParts, RankGroup, SingleRank, share};
pub use rust_backend::RustBackend;
pub use select::{BackendRequest, SelectedBackend, Workload};
pub use train::{InitialWeights, Resume, TrainRequest, Trained};
pub use vocabulary::find_vocabulary;
