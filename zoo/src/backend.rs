//! The `Backend` trait, which computes embeddings, and the choice between implementations.

use std::{fmt, rc::Rc};

use laps_align::similarity::{AggregationWeights, AlignmentConfig, Engine, EngineOptions, SimilarityEngine};
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::encoder::{Device, Encoder};

use crate::{EngineChoice, EngineUsed, Error, Libtorch, Result, RustBackend};

/// Computes embeddings with the weights of a checkpoint: the pure-Rust tensor, ONNX Runtime or libtorch on a device.
pub trait Backend: fmt::Debug {
    /// Checks that the library and the device are there, before anything is read.
    ///
    /// # Errors
    /// A missing library or device.
    fn check(&self) -> Result<()>;

    /// An encoder of `entry` with the weights of `checkpoint`, whose file has the hash `sha256`.
    ///
    /// # Errors
    /// A checkpoint that does not fit the entry, and what the engine refuses.
    fn encoder(
        &self,
        entry: &Entry,
        checkpoint: &Rc<Checkpoint>,
        sha256: &str,
    ) -> Result<(Box<dyn Encoder>, EngineUsed)>;

    /// Notes for the user about how the last [`encoder`](Self::encoder) was opened.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Backends of this process besides the pure-Rust tensor and ONNX Runtime, which every program has.
#[derive(Clone, Copy, Default)]
pub struct Backends {
    /// libtorch, in the program that links it.
    pub torch: Option<&'static dyn Libtorch>,
}

impl Backends {
    /// libtorch.
    ///
    /// # Errors
    /// [`Error::Engine`] in a program without libtorch.
    pub fn libtorch(&self) -> Result<&'static dyn Libtorch> {
        self.torch.ok_or_else(|| Error::Engine {
            engine: "torch".to_owned(),
            reason: "this program does not link libtorch".to_owned(),
            hint: "run `laps-zoo-torch` (`make build` builds it), or use the engine `ort` or `rust`".to_owned(),
        })
    }

    /// GPUs that libtorch can use; 0 without libtorch.
    pub fn gpus(&self) -> usize {
        self.torch.map_or(0, |torch| torch.info().gpus)
    }

    /// The backend of an engine that computes on the checkpoint itself. `auto` is libtorch where it is linked, and the
    /// pure-Rust tensor otherwise.
    ///
    /// # Errors
    /// [`Error::Engine`] for ONNX Runtime, which needs graphs ([`OnnxBackend`](crate::OnnxBackend)), and for libtorch in a
    /// program without it.
    pub fn on_checkpoint(&self, engine: EngineChoice, device: Device) -> Result<Rc<dyn Backend>> {
        match (engine, self.torch) {
            (EngineChoice::Ort, _) => Err(Error::Engine {
                engine: "ort".to_owned(),
                reason: "it runs graphs, not checkpoints".to_owned(),
                hint: "open it with `OnnxBackend`".to_owned(),
            }),
            (EngineChoice::Auto, Some(torch)) => Ok(torch.backend(device)),
            (EngineChoice::Torch, _) => Ok(self.libtorch()?.backend(device)),
            (EngineChoice::Rust, _) | (EngineChoice::Auto, None) => Ok(Rc::new(RustBackend::new(device))),
        }
    }

    /// The similarity engine that fits to where the embeddings are computed: libtorch for a GPU that it can use, the exact
    /// CPU engine otherwise.
    ///
    /// # Errors
    /// Weights that do not fit `config`.
    pub fn similarity(
        &self,
        device: Device,
        config: AlignmentConfig,
        weights: &AggregationWeights,
        options: EngineOptions,
    ) -> Result<Box<dyn SimilarityEngine>> {
        match (self.torch, device) {
            (Some(torch), Device::Cuda(index)) if index < self.gpus() => {
                torch.similarity(device, config, weights, options.memory_limit)
            }
            _ => Ok(Box::new(Engine::new(config, weights, options)?)),
        }
    }

    /// Sets the number of threads of every engine. Call it once, before anything is computed.
    ///
    /// # Errors
    /// [`Error::Threads`] if the threads cannot be started.
    pub fn set_threads(&self, threads: usize) -> Result<()> {
        if let Some(torch) = self.torch {
            torch.set_threads(threads);
        }
        let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        built.map_err(|error| Error::Threads { threads, reason: error.to_string() })
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").field("torch", &self.torch.is_some()).finish()
    }
}
