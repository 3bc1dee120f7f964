//! Sessions of ONNX Runtime. The shared library is loaded when the first session opens, not before.
//!
//! [`library::find`] locates the library, [`ExecutionDevice`] says where a session runs, [`Session`] runs one graph, and
//! [`OrtEncoder`] runs both encoders of a package.

mod binding;
mod device;
mod encoder;
mod environment;
mod error;
pub mod library;
mod placement;
mod provider;
mod session;

pub use device::{ExecutionDevice, ProviderChoice};
pub use encoder::OrtEncoder;
pub use environment::environment;
pub use error::RuntimeError;
pub use library::{BuildInfo, Library, LibraryOrigin};
pub use placement::Placement;
pub use provider::{Provider, ProviderOptions, ShapeProfile};
pub(crate) use session::{DISABLED_OPTIMIZERS, weights_file};
pub use session::{InputTensor, Optimization, Session, SessionOptions};
