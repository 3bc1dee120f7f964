//! Retrieval.

mod error;

pub use error::RetrievalError;
