//! The backend on the pure-Rust tensor.

use std::rc::Rc;

use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::{
    array::Array,
    encoder::{Device, Encoder, ModelEncoder},
    params::Parameter,
};

use crate::{Backend, EngineUsed, Result};

/// Computes embeddings with the pure-Rust tensor on the CPU.
#[derive(Clone, Debug)]
pub struct RustBackend {
    device: Device,
}

impl RustBackend {
    /// The backend for the requested `device`; [`check`](Backend::check) refuses a GPU.
    pub fn new(device: Device) -> Self {
        Self { device }
    }
}

impl Backend for RustBackend {
    fn check(&self) -> Result<()> {
        match self.device {
            Device::Auto | Device::Cpu => Ok(()),
            Device::Cuda(_) => Err(laps_model::Error::Device {
                device: self.device.to_string(),
                reason: "the engine `rust` computes on the CPU only".to_owned(),
                hint: "use the device `cpu`, or the engine `torch` with CUDA".to_owned(),
            }
            .into()),
        }
    }

    fn encoder(&self, entry: &Entry, checkpoint: &Rc<Checkpoint>, _: &str) -> Result<(Box<dyn Encoder>, EngineUsed)> {
        self.check()?;
        let used = EngineUsed {
            name: "rust".into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: "cpu".to_owned(),
            threads: rayon::current_num_threads(),
            graphs: None,
            placement: None,
        };
        let checkpoint = Rc::clone(checkpoint);
        let read = move |parameter: &Parameter| Ok(checkpoint.read(&parameter.name)?);
        Ok((Box::new(ModelEncoder::<Array>::new(&entry.model, (), read)?), used))
    }
}
