//! The device of a session: an execution provider and a GPU number.

use std::str::FromStr;

use laps_model::encoder::Device;

use super::Provider;
use crate::{Error, Result};

/// An execution provider as the user names it: `auto`, or one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderChoice {
    /// CUDA if it can be used, else the CPU. TensorRT, which takes minutes to build engines, is never chosen.
    #[default]
    Auto,
    /// This provider, or an error.
    Only(Provider),
}

impl FromStr for ProviderChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Only(Provider::Cpu)),
            "cuda" => Ok(Self::Only(Provider::Cuda)),
            "tensorrt" => Ok(Self::Only(Provider::TensorRt)),
            _ => Err(Error::option("execution provider", "`auto`, `cpu`, `cuda` or `tensorrt`", text)),
        }
    }
}

/// Device of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionDevice {
    /// The first GPU with CUDA if it can be used, else the CPU.
    Auto,
    /// CPU.
    Cpu,
    /// GPU by number, with CUDA or TensorRT.
    Gpu(Provider, usize),
}

impl ExecutionDevice {
    /// Combines an execution provider and a device.
    ///
    /// # Errors
    /// [`Error::Option`] if they contradict each other.
    pub fn new(choice: ProviderChoice, device: Device) -> Result<Self> {
        let refused = |expected: &str| Err(Error::option("device", expected, &device.to_string()));
        match (choice, device) {
            (ProviderChoice::Auto, Device::Auto) => Ok(Self::Auto),
            (ProviderChoice::Auto, Device::Cpu) => Ok(Self::Cpu),
            (ProviderChoice::Auto, Device::Cuda(index)) => Ok(Self::Gpu(Provider::Cuda, index)),
            (ProviderChoice::Only(Provider::Cpu), Device::Auto | Device::Cpu) => Ok(Self::Cpu),
            (ProviderChoice::Only(Provider::Cpu), Device::Cuda(_)) => {
                refused("`cpu` or `auto` with the execution provider `cpu`")
            }
            (ProviderChoice::Only(provider), Device::Auto) => Ok(Self::Gpu(provider, 0)),
            (ProviderChoice::Only(provider), Device::Cuda(index)) => Ok(Self::Gpu(provider, index)),
            (ProviderChoice::Only(provider), Device::Cpu) => {
                refused(&format!("`cuda:N` or `auto` with the execution provider `{provider}`"))
            }
        }
    }

    /// The execution provider that a session on this device will use. For [`Auto`](Self::Auto) this is CUDA if the library
    /// has it; whether a GPU can be used shows when the session opens.
    pub fn provider(self) -> Provider {
        match self {
            Self::Gpu(provider, _) => provider,
            Self::Cpu => Provider::Cpu,
            Self::Auto => match super::environment() {
                Ok((_, library, build))
                    if build.providers.contains(&Provider::Cuda)
                        && Provider::Cuda.check_installed(&library).is_ok() =>
                {
                    Provider::Cuda
                }
                _ => Provider::Cpu,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use laps_model::encoder::Device;

    use super::{ExecutionDevice, Provider, ProviderChoice};

    #[test]
    fn provider_and_device_are_combined() {
        let device = |provider: &str, device: &str| {
            ExecutionDevice::new(provider.parse::<ProviderChoice>().unwrap(), device.parse::<Device>().unwrap())
        };
        assert_eq!(device("auto", "auto").unwrap(), ExecutionDevice::Auto);
        assert_eq!(device("auto", "cuda:2").unwrap(), ExecutionDevice::Gpu(Provider::Cuda, 2));
        assert_eq!(device("cpu", "auto").unwrap(), ExecutionDevice::Cpu);
        assert_eq!(device("tensorrt", "auto").unwrap(), ExecutionDevice::Gpu(Provider::TensorRt, 0));
        assert_eq!(device("tensorrt", "cuda:1").unwrap(), ExecutionDevice::Gpu(Provider::TensorRt, 1));
        assert!(device("cpu", "cuda").is_err() && device("cuda", "cpu").is_err());
        assert!("gpu".parse::<ProviderChoice>().is_err());
    }
}
