//! The choice of a backend from what is asked for, what is there, and the amount of work.

use std::{path::PathBuf, rc::Rc};

use laps_model::encoder::Device;
use laps_onnx::{
    graph::GraphPrecision,
    package::GraphCache,
    runtime::{ExecutionDevice, RuntimeError, SessionOptions, library},
};

use crate::{Backend, Backends, EngineChoice, Error, OnnxBackend, Result, auto_backend::AutoBackend};

/// How much a model has to encode. It decides for the engine `auto` whether exporting graphs for ONNX Runtime pays off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// A few images or captions: no export.
    #[default]
    Few,
    /// A folder or a data set: ONNX Runtime on a CPU if its library is found, because it is faster there.
    Many,
}

/// Choice of the engine that computes embeddings, and its options.
#[derive(Clone, Debug)]
pub struct BackendRequest {
    /// Engine.
    pub engine: EngineChoice,
    /// Device.
    pub device: Device,
    /// Number of threads.
    pub threads: usize,
    /// Folder of exported graphs, which selects ONNX Runtime.
    pub graphs: Option<PathBuf>,
    /// Options of ONNX Runtime sessions, which select it too.
    pub session: Option<SessionOptions>,
    /// Amount of work.
    pub workload: Workload,
}

/// A chosen backend.
#[derive(Clone, Debug)]
pub struct SelectedBackend {
    /// The backend. For the engine `auto` with ONNX Runtime, it moves on to another engine if the graphs cannot be opened.
    pub backend: Rc<dyn Backend>,
    /// ONNX Runtime, if it was chosen.
    pub onnx: Option<Rc<OnnxBackend>>,
}

impl BackendRequest {
    /// Chooses the backend. Nothing is read yet; [`Backend::check`] says whether it can be used.
    ///
    /// # Errors
    /// [`Error::Engine`] for graphs or session options with another engine than ONNX Runtime, and for an engine that this
    /// program does not have; a library that the user names and that does not exist.
    pub fn select(&self, backends: Backends) -> Result<SelectedBackend> {
        if self.is_onnx(backends)? {
            let session = match &self.session {
                Some(session) => session.clone(),
                None => SessionOptions {
                    device: ExecutionDevice::new("auto".parse()?, self.device)?,
                    ..SessionOptions::cpu(self.threads)
                },
            };
            let cache = laps_files::cache::path().map(|path| GraphCache::new(&path));
            let backend = OnnxBackend::new(self.graphs.clone(), GraphPrecision::Fp32, session).with_cache(cache);
            let onnx = Rc::new(backend);
            let backend: Rc<dyn Backend> = match self.engine {
                EngineChoice::Auto if !self.names_onnx() => {
                    let other = backends.on_checkpoint(self.engine, self.device)?;
                    Rc::new(AutoBackend::new(Rc::clone(&onnx), other))
                }
                _ => Rc::clone(&onnx) as Rc<dyn Backend>,
            };
            return Ok(SelectedBackend { backend, onnx: Some(onnx) });
        }
        Ok(SelectedBackend { backend: backends.on_checkpoint(self.engine, self.device)?, onnx: None })
    }

    /// Whether the user gives graphs or session options, which other engines than ONNX Runtime do not have.
    fn names_onnx(&self) -> bool {
        self.graphs.is_some() || self.session.is_some()
    }

    fn is_onnx(&self, backends: Backends) -> Result<bool> {
        match self.engine {
            EngineChoice::Ort => Ok(true),
            EngineChoice::Auto if self.names_onnx() => Ok(true),
            EngineChoice::Auto if self.workload == Workload::Many && self.is_on_cpu(backends) => {
                match library::find() {
                    Ok(_) => Ok(true),
                    Err(RuntimeError::Missing { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            EngineChoice::Torch | EngineChoice::Rust if self.names_onnx() => Err(Error::Engine {
                engine: if self.engine == EngineChoice::Torch { "torch" } else { "rust" }.to_owned(),
                reason: "it runs no graphs".to_owned(),
                hint: "use the engine `ort` or `auto` for graphs".to_owned(),
            }),
            EngineChoice::Auto | EngineChoice::Torch | EngineChoice::Rust => Ok(false),
        }
    }

    /// On a GPU, where Swin is not measured with both engines, libtorch stays the choice of `auto`.
    fn is_on_cpu(&self, backends: Backends) -> bool {
        match self.device {
            Device::Cpu => true,
            Device::Auto => backends.gpus() == 0,
            Device::Cuda(_) => false,
        }
    }
}

impl Workload {
    /// Items from which `auto` exports graphs. Below it, opening the model without an export matters more than the speed of
    /// each item. The number is a choice; where the two are even depends on the model and the machine.
    pub const MANY: usize = 64;

    /// The workload of a number of images or captions.
    pub fn of(items: usize) -> Self {
        if items >= Self::MANY { Self::Many } else { Self::Few }
    }
}

#[cfg(test)]
mod tests {
    use laps_model::encoder::Device;
    use laps_onnx::runtime::library;

    use super::{BackendRequest, Workload};
    use crate::{Backends, EngineChoice};

    #[test]
    fn auto_exports_graphs_for_many_images_on_a_cpu_and_not_for_few() {
        let chooses_onnx = |workload, device| {
            let engine = EngineChoice::Auto;
            let request = BackendRequest { engine, device, threads: 1, graphs: None, session: None, workload };
            request.select(Backends::default()).unwrap().onnx.is_some()
        };
        assert!(!chooses_onnx(Workload::of(1), Device::Cpu));
        assert!(!chooses_onnx(Workload::of(Workload::MANY - 1), Device::Cpu));
        if library::find().is_err() {
            return println!("skipped: ONNX Runtime was not found");
        }
        for device in [Device::Cpu, Device::Auto] {
            assert!(chooses_onnx(Workload::of(Workload::MANY), device));
        }
    }
}
