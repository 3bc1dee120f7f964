//! ONNX Runtime, loaded at run time: nothing here is touched by a command that does not ask for it.

mod error;
pub mod library;

pub use error::RuntimeError;
pub use library::{Build, Library, Origin, Provider};
