//! What is known about each model of the zoo, and where its files come from.

pub mod checkpoint;
mod error;
pub mod fetch;
pub mod registry;
pub mod store;

pub use error::{Error, Result};
