//! Interface to the features that need libtorch. `laps-torch` implements it; programs without libtorch do not have it.

use std::{path::PathBuf, rc::Rc, sync::atomic::AtomicBool};

use laps_align::similarity::{AggregationWeights, AlignmentConfig, SimilarityEngine};
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::{array::Array, encoder::Device};

use crate::{Backend, Observer, ProcessGroup, RankGroup, Result, TrainRequest, Trained};

/// libtorch: embeddings and similarities on its devices, and training.
pub trait Libtorch: Sync {
    /// The library that this process has loaded.
    fn info(&self) -> LibtorchInfo;

    /// Sets the number of threads of one operation.
    fn set_threads(&self, threads: usize);

    /// Embeddings on `device`.
    fn backend(&self, device: Device) -> Rc<dyn Backend>;

    /// Similarities on `device`, in tiles of at most `memory_limit` bytes.
    ///
    /// # Errors
    /// A device that is not there, and weights that do not fit `config`.
    fn similarity(
        &self,
        device: Device,
        config: AlignmentConfig,
        weights: &AggregationWeights,
        memory_limit: usize,
    ) -> Result<Box<dyn SimilarityEngine>>;

    /// Joins the process group of a distributed run, whose operations are on `device`.
    ///
    /// # Errors
    /// A device or communication library that is not there, ranks that are missing, and a store that does not answer.
    fn join(&self, group: &ProcessGroup, device: Device) -> Result<Rc<dyn RankGroup>>;

    /// Trains the model of an entry. Invalid input fails before the first step. When `stop` becomes true, the current step
    /// is finished, the state is saved and training ends with an error.
    ///
    /// # Errors
    /// Invalid input, and files that cannot be written.
    fn train(&self, request: &TrainRequest, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Trained>;

    /// A training step that can be repeated, for measurements.
    ///
    /// # Errors
    /// A device that is not there, and weights that do not fit the entry.
    fn training_step(&self, benchmark: StepBenchmark<'_>) -> Result<Box<dyn TrainingStep>>;
}

/// The libtorch library of this process.
#[derive(Clone, Debug)]
pub struct LibtorchInfo {
    /// Version of the headers it was built with, which it checks when it is loaded.
    pub version: &'static str,
    /// The library that this process has loaded; None if the system does not tell.
    pub path: Option<PathBuf>,
    /// Whether it was built for CUDA.
    pub cuda: bool,
    /// GPUs that it can use.
    pub gpus: usize,
    /// Threads of one operation.
    pub threads: usize,
}

/// A batch that a training step takes again and again, with the recipe of the entry and the hardest negatives.
#[derive(Clone, Debug)]
pub struct StepBenchmark<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// Its weights.
    pub checkpoint: &'a Rc<Checkpoint>,
    /// Device.
    pub device: Device,
    /// Number of threads.
    pub threads: usize,
    /// Random seed of dropout.
    pub seed: u64,
    /// Images, `(batch, 3, size, size)`.
    pub pixels: Array,
    /// Token ids of the caption of each image.
    pub tokens: Vec<Vec<u32>>,
}

/// A training step that can be repeated.
pub trait TrainingStep {
    /// The device that it computes on.
    fn device(&self) -> String;

    /// One step: forward pass, backward pass, optimizer.
    ///
    /// # Errors
    /// An error of libtorch.
    fn step(&mut self) -> Result<()>;

    /// Gives the threads of the step back.
    fn release_threads(&mut self);
}
