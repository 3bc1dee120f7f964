//! ONNX Runtime, loaded at run time: nothing here is touched by a command that does not ask for it.

mod encoder;
mod environment;
mod error;
pub mod library;
mod session;

pub use encoder::OrtEncoder;
pub use environment::environment;
pub use error::RuntimeError;
pub use library::{Build, Library, Origin, Provider};
pub use session::{Input, Session, SessionOptions};
