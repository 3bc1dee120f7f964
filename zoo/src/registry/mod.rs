//! Registry.

mod error;

pub use error::RegistryError;
