//! LAPS on libtorch: the tensor backend, similarities on a GPU, and training.
//!
//! | Module or type | Purpose |
//! |---|---|
//! | [`Torch`], [`TorchDevice`] | The tensor trait of [`laps_model`] on libtorch, and its devices |
//! | [`NoGradEncoder`] | An encoder for inference |
//! | [`similarity`] | The exact similarity engine for GPUs |
//! | [`train`] | Training: a whole run, or single steps |
//! | [`distributed`] | Process groups for training on several GPUs and machines |
//! | [`TorchLibrary`] | libtorch as a backend of the [`laps`] library; the program `laps-zoo-torch` passes it on |
//!
//! The models are those of [`laps_model`]. Any of them runs on libtorch if its tensor type is [`Torch`]:
//!
//! ```
//! use laps_model::{
//!     array::Array,
//!     encoder::Device,
//!     tensor::{DeviceTensor, Tensor},
//! };
//! use laps_torch::{Torch, TorchDevice};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = TorchDevice::open(Device::Cpu)?;
//! let logits = Torch::upload(&Array::new(&[1, 2], vec![0.0, 0.0])?, &device)?;
//! assert_eq!(logits.softmax()?.download()?.values(), [0.5, 0.5]);
//! # Ok(())
//! # }
//! ```
//!
//! Only this crate uses `tch`, and only its fallible `f_*` methods: the others panic.

#[doc(hidden)]
pub mod baseline;
mod device;
pub mod distributed;
mod error;
mod libtorch;
pub mod similarity;
mod tensor;
pub mod train;

pub use self::device::{TorchDevice, cuda_devices, has_cuda, set_threads, threads, version};
pub use self::error::{Error, Result};
pub use self::libtorch::TorchLibrary;
pub use self::tensor::{NoGradEncoder, Torch};
