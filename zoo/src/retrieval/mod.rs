//! Retrieval.

mod error;
pub mod similarity;

pub use error::RetrievalError;
