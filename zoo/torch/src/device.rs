//! libtorch devices and threads.

use tch::Cuda;

use crate::{Error, Result};
use laps_model::encoder::Device;

/// An available device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TorchDevice(tch::Device);

impl TorchDevice {
    /// Opens the requested device. `Device::Auto` is the first GPU if there is one, and the CPU otherwise.
    ///
    /// # Errors
    /// A GPU that is not available. There is no silent fallback to the CPU.
    pub fn open(device: Device) -> Result<Self> {
        match device {
            Device::Auto if cuda_devices() > 0 => Ok(Self(tch::Device::Cuda(0))),
            Device::Auto | Device::Cpu => Ok(Self(tch::Device::Cpu)),
            Device::Cuda(index) if index < cuda_devices() => Ok(Self(tch::Device::Cuda(index))),
            Device::Cuda(_) => Err(unavailable(device)),
        }
    }

    /// Whether this is a GPU.
    pub fn is_cuda(self) -> bool {
        matches!(self.0, tch::Device::Cuda(_))
    }

    /// Number of the GPU; None for the CPU.
    pub(super) fn cuda_index(self) -> Option<usize> {
        match self.0 {
            tch::Device::Cuda(index) => Some(index),
            _ => None,
        }
    }

    pub(super) fn of(tensor: &tch::Tensor) -> Self {
        Self(tensor.device())
    }

    pub(super) fn device(self) -> tch::Device {
        self.0
    }
}

impl std::fmt::Display for TorchDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            tch::Device::Cuda(index) => write!(f, "cuda:{index}"),
            _ => f.write_str("cpu"),
        }
    }
}

/// Number of available GPUs.
pub fn cuda_devices() -> usize {
    if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 }
}

/// Threads of one operation. libtorch stores this number for each calling thread.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Sets the threads of one operation for the calling thread.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}

/// Version of the libtorch that this crate was built with.
pub fn version() -> &'static str {
    option_env!("LAPS_ZOO_LIBTORCH_VERSION").unwrap_or("unknown")
}

/// Whether the libtorch that this process has loaded supports CUDA.
pub fn has_cuda() -> bool {
    tch::utils::has_cudart()
}

fn unavailable(device: Device) -> Error {
    let (reason, hint) = match (has_cuda(), cuda_devices()) {
        (false, _) => (
            "the loaded libtorch was built without CUDA".to_owned(),
            "run `make setup CUDA=1` and build again, install torch with CUDA, or use device `cpu`",
        ),
        (true, 0) => (
            "`libtorch_cuda.so` finds no GPU: no driver (`libcuda.so.1`) or no device".to_owned(),
            "check that `nvidia-smi` lists a GPU, or use device `cpu`",
        ),
        (true, count) => (format!("there are {count} GPUs, numbered from 0"), "`laps-zoo doctor` lists the devices"),
    };
    laps_model::Error::Device { device: device.to_string(), reason, hint: hint.to_owned() }.into()
}
