//! libtorch behind the tensor trait. Nothing else in this crate names `tch`.
//!
//! Only the fallible `f_*` methods are called: the plain ones panic.

mod device;
mod error;
mod libtorch;
pub mod similarity;
mod tensor;
pub mod train;

pub use self::device::{TorchDevice, cuda_devices, has_cuda, set_threads, threads, version};
pub use self::error::{Error, Result};
pub use self::libtorch::TorchLibrary;
pub use self::tensor::{Torch, Unrecorded};
