//! What computes the similarities: the engine for CPUs, or the one on libtorch tensors.

use zoo::{
    array::Array,
    encoder::Device,
    retrieval::similarity::{
        AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, ImageSource, Outcome, Plan, Sink,
        StageTimes,
    },
};

use crate::Result;

/// An exact similarity engine.
pub enum SimilarityEngine {
    /// On the processor.
    Cpu(Box<Engine>),
    /// On libtorch tensors, wherever these are.
    #[cfg(feature = "torch")]
    Torch(Box<zoo::torch::similarity::TorchEngine>),
}

impl SimilarityEngine {
    /// The engine that fits to where the embeddings come from: on libtorch tensors if they come from a GPU that this build's
    /// libtorch can use.
    pub fn beside(
        device: Device,
        config: AlignmentConfig,
        weights: &AggregationWeights,
        options: EngineOptions,
    ) -> Result<Self> {
        #[cfg(feature = "torch")]
        if matches!(device, Device::Cuda(index) if index < zoo::torch::cuda_devices()) {
            return Self::torch(device, config, weights, options.memory_limit);
        }
        #[cfg(not(feature = "torch"))]
        let _ = device;
        Ok(Self::Cpu(Box::new(Engine::new(config, weights, options)?)))
    }

    /// The engine on libtorch tensors.
    #[cfg(feature = "torch")]
    pub fn torch(
        device: Device,
        config: AlignmentConfig,
        weights: &AggregationWeights,
        memory_limit: usize,
    ) -> Result<Self> {
        let device = zoo::torch::TorchDevice::open(device)?;
        let engine = zoo::torch::similarity::TorchEngine::new(config, weights, device, memory_limit)?;
        Ok(Self::Torch(Box::new(engine)))
    }

    /// What computes: the instruction set on the processor, or libtorch and its device.
    pub fn description(&self) -> String {
        match self {
            Self::Cpu(engine) => engine.instruction_set().to_owned(),
            #[cfg(feature = "torch")]
            Self::Torch(engine) => format!("torch on {}", engine.device()),
        }
    }

    /// All similarities, `(images, captions)`.
    pub fn similarities(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<Array> {
        Ok(match self {
            Self::Cpu(engine) => engine.similarities(images, captions)?,
            #[cfg(feature = "torch")]
            Self::Torch(engine) => engine.similarities(images, captions)?,
        })
    }

    /// The largest tiles that fit into the memory limit.
    pub fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        Ok(match self {
            Self::Cpu(engine) => engine.plan(images, captions)?,
            #[cfg(feature = "torch")]
            Self::Torch(engine) => engine.plan(images, captions)?,
        })
    }

    /// Computes the tiles of `plan` that `sink` wants.
    pub fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        Ok(match self {
            Self::Cpu(engine) => engine.run(images, captions, plan, sink)?,
            #[cfg(feature = "torch")]
            Self::Torch(engine) => engine.run(images, captions, plan, sink)?,
        })
    }

    /// What the stages of comparing the first images with the first captions take on one thread; `None` for the engine
    /// on libtorch tensors, whose stages are libtorch's.
    pub(crate) fn stages(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        count: [usize; 2],
    ) -> Result<Option<StageTimes>> {
        Ok(match self {
            Self::Cpu(engine) => Some(engine.stages(&engine.prepare(images, 0..count[0])?, captions, 0..count[1])?),
            #[cfg(feature = "torch")]
            Self::Torch(_) => None,
        })
    }

    /// Prepares the images `0..count` and drops them.
    pub(crate) fn prepare(&self, images: &dyn ImageSource, count: usize) -> Result<()> {
        match self {
            Self::Cpu(engine) => drop(engine.prepare(images, 0..count)?),
            #[cfg(feature = "torch")]
            Self::Torch(engine) => drop(engine.prepare(images, 0..count)?),
        }
        Ok(())
    }
}
