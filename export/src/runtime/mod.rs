//! ONNX Runtime, loaded at run time: nothing here is touched by a command that does not ask for it.

mod binding;
mod encoder;
mod environment;
mod error;
pub mod library;
mod placement;
mod provider;
mod session;

pub use encoder::OrtEncoder;
pub use environment::environment;
pub use error::RuntimeError;
pub use library::{Build, Library, Origin};
pub use placement::Placement;
pub use provider::{Place, Provider, ProviderChoice, ProviderOptions, ShapeProfile};
pub use session::{Input, Session, SessionOptions, Stopper};
