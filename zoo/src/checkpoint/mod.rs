//! Checkpoint.

mod error;

pub use error::CheckpointError;
