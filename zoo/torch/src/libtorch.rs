//! libtorch as a backend of the `laps` library.

use std::{path::PathBuf, rc::Rc, sync::atomic::AtomicBool};

use laps::{
    Backend, EngineUsed, Libtorch, LibtorchInfo, Observer, ProcessGroup, RankGroup, StepBenchmark, TrainRequest,
    Trained, TrainingStep,
};
use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, ImageSource, Plan, RunOutcome, SimilarityEngine, StageTimes,
    TileSink,
};
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::{
    array::Array,
    encoder::{Device, Encoder, ModelEncoder},
    params::Parameter,
};

use crate::{
    NoGradEncoder, Torch, TorchDevice, cuda_devices,
    distributed::Collective,
    has_cuda, set_threads,
    similarity::TorchEngine,
    threads,
    train::{CaptionInputs, HingeLoss, ImageInputs, Learner, Negatives, PairBatch, StepOptions, Weights, train},
    version,
};

/// The libtorch that this program links, for [`laps::Backends`].
#[derive(Clone, Copy, Debug)]
pub struct TorchLibrary;

impl Libtorch for TorchLibrary {
    fn info(&self) -> LibtorchInfo {
        LibtorchInfo {
            version: version(),
            path: loaded_library("libtorch_cpu.so"),
            cuda: has_cuda(),
            gpus: cuda_devices(),
            threads: threads(),
        }
    }

    fn set_threads(&self, threads: usize) {
        set_threads(threads);
    }

    fn backend(&self, device: Device) -> Rc<dyn Backend> {
        Rc::new(TorchBackend { device })
    }

    fn similarity(
        &self,
        device: Device,
        config: AlignmentConfig,
        weights: &AggregationWeights,
        memory_limit: usize,
    ) -> laps::Result<Box<dyn SimilarityEngine>> {
        let device = TorchDevice::open(device)?;
        Ok(Box::new(TorchEngine::new(config, weights, device, memory_limit)?))
    }

    fn join(&self, group: &ProcessGroup, device: Device) -> laps::Result<Rc<dyn RankGroup>> {
        let device = TorchDevice::open(group.device(device, cuda_devices()))?;
        Ok(Rc::new(Collective::open(group, device)?))
    }

    fn train(&self, request: &TrainRequest, stop: &AtomicBool, observer: &mut dyn Observer) -> laps::Result<Trained> {
        Ok(train(request, stop, observer)?)
    }

    fn training_step(&self, benchmark: StepBenchmark<'_>) -> laps::Result<Box<dyn TrainingStep>> {
        let StepBenchmark { entry, checkpoint, device, threads, seed, pixels, tokens } = benchmark;
        let config = &entry.train;
        let device = TorchDevice::open(device)?;
        let weights = Weights::new(&entry.model, device, |parameter| Ok(checkpoint.read(&parameter.name)?))?;
        let mut learner = Learner::new(weights, StepOptions::of(config, threads))?;
        learner.freeze_backbones(config.freeze_backbones)?;
        Ok(Box::new(RepeatedStep {
            learner,
            hinge: HingeLoss { margin: config.margin, negatives: Negatives::Hardest, weight: 1.0 },
            learning_rates: [config.learning_rate, config.learning_rate * config.backbone_lr_ratio],
            device,
            seed,
            pixels,
            tokens,
        }))
    }
}

/// Computes embeddings on one device.
#[derive(Debug)]
struct TorchBackend {
    device: Device,
}

impl Backend for TorchBackend {
    fn check(&self) -> laps::Result<()> {
        TorchDevice::open(self.device)?;
        Ok(())
    }

    fn encoder(
        &self,
        entry: &Entry,
        checkpoint: &Rc<Checkpoint>,
        _: &str,
    ) -> laps::Result<(Box<dyn Encoder>, EngineUsed)> {
        let device = TorchDevice::open(self.device)?;
        let used = EngineUsed {
            name: "torch".into(),
            version: version().to_owned(),
            device: device.to_string(),
            threads: threads(),
            graphs: None,
            placement: None,
        };
        let checkpoint = Rc::clone(checkpoint);
        let read = move |parameter: &Parameter| Ok(checkpoint.read(&parameter.name)?);
        Ok((Box::new(NoGradEncoder(ModelEncoder::<Torch>::new(&entry.model, device, read)?)), used))
    }
}

impl SimilarityEngine for TorchEngine {
    fn description(&self) -> String {
        format!("torch on {}", self.device())
    }

    fn plan(&self, images: usize, captions: &CaptionMatrix) -> laps_align::Result<Plan> {
        Ok(Self::plan(self, images, captions)?)
    }

    fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn TileSink,
    ) -> laps_align::Result<RunOutcome> {
        Ok(Self::run(self, images, captions, plan, sink)?)
    }

    fn prepare_only(&self, images: &dyn ImageSource, count: usize) -> laps_align::Result<()> {
        self.prepare(images, 0..count)?;
        Ok(())
    }

    fn stage_times(
        &self,
        _: &dyn ImageSource,
        _: &CaptionMatrix,
        _: usize,
        _: usize,
    ) -> laps_align::Result<Option<StageTimes>> {
        Ok(None)
    }
}

/// Repeats a training step on the same batch.
struct RepeatedStep {
    learner: Learner,
    hinge: HingeLoss,
    learning_rates: [f64; 2],
    device: TorchDevice,
    seed: u64,
    pixels: Array,
    tokens: Vec<Vec<u32>>,
}

impl TrainingStep for RepeatedStep {
    fn device(&self) -> String {
        self.device.to_string()
    }

    fn step(&mut self) -> laps::Result<()> {
        let captions: Vec<&[u32]> = self.tokens.iter().map(Vec::as_slice).collect();
        let ids: Vec<u64> = (0..captions.len() as u64).collect();
        let batch = PairBatch {
            images: ImageInputs::Pixels(&self.pixels),
            captions: CaptionInputs::Tokens(&captions),
            image_ids: &ids,
        };
        self.learner.step(&[batch], &self.hinge, self.learning_rates, self.seed)?;
        Ok(())
    }

    fn release_threads(&mut self) {
        self.learner.release_threads();
    }
}

/// Path of a library that this process has loaded, if the system lists it.
fn loaded_library(name: &str) -> Option<PathBuf> {
    let maps = fs_err::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(name))?;
    Some(line[line.find('/')?..].into())
}
