//! The models of LAPS, written once over a tensor trait.

pub mod array;
pub mod dim;
pub mod encoder;
mod error;
pub mod models;
pub mod nn;
pub mod params;
pub mod params_init;
pub mod random;
pub mod tensor;

pub use error::{Error, Result};
