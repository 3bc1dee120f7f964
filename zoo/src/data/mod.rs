//! Data.

mod error;
pub mod scenes;

pub use error::DataError;
