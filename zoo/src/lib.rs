//! What LAPS is: models, checkpoints, data, retrieval and the registry of entries.
//!
//! Fu, Zhang, Xia, Mao, "Linguistic-Aware Patch Slimming Framework for Fine-grained Cross-Modal Alignment", CVPR 2024.
//!
//! Models are written once over [`tensor::Tensor`] and run on every implementation of it: [`array::Array`], a small
//! pure-Rust tensor that is always there, and with the `torch` feature libtorch.

pub mod array;
pub mod cache;
pub mod checkpoint;
pub mod data;
pub mod dim;
pub mod encoder;
pub mod error;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod models;
pub mod nn;
pub mod params;
pub mod params_init;
pub mod random;
pub mod registry;
pub mod retrieval;
pub mod search;
pub mod store;
pub mod tensor;
#[cfg(feature = "torch")]
pub mod torch;
pub mod train;

pub use error::{Error, Result};
