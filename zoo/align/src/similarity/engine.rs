//! The similarity engine for CPUs: planning, threads and tiles.

use std::{ops::Range, thread, time::Instant};

use super::{
    captions::CaptionMatrix,
    config::AlignmentConfig,
    images::PreparedImages,
    plan::{Plan, Planner, Tile},
    run::{RunOutcome, TileWorker, run_tiles},
    scratch::PairCounts,
    simd::SimdLevel,
    sink::{TileSink, whole_matrix},
    source::ImageSource,
    stages::{StageTimes, Stopwatch},
    weights::{AggregationWeights, PackedAggregation},
    worker::Worker,
};
use crate::{Error, Result};
use laps_model::{array::Array, heads::Ablation};

/// CPU and memory of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Number of threads; 0 for one per processor.
    pub threads: usize,
    /// Maximum bytes of all threads together, without the inputs and the finished matrix.
    pub memory_limit: usize,
}

impl Default for EngineOptions {
    /// One thread per processor, 1 GiB.
    fn default() -> Self {
        Self { threads: 0, memory_limit: 1 << 30 }
    }
}

/// Computes the exact similarities of image and caption embeddings on a CPU.
#[derive(Debug)]
pub struct Engine {
    config: AlignmentConfig,
    /// None without groups.
    pub(super) aggregation: Option<PackedAggregation>,
    /// What differs from LAPS.
    ablation: Option<Ablation>,
    level: SimdLevel,
    threads: usize,
    memory_limit: usize,
}

impl Engine {
    /// Creates an engine for one model.
    ///
    /// # Errors
    /// Invalid sizes, and weights that do not fit them or are not finite.
    pub fn new(config: AlignmentConfig, weights: &AggregationWeights, options: EngineOptions) -> Result<Self> {
        Self::with_level(config, weights, options, SimdLevel::detect())
    }

    /// As [`new`](Self::new), with a given instruction set instead of the widest.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_level(
        config: AlignmentConfig,
        weights: &AggregationWeights,
        options: EngineOptions,
        level: SimdLevel,
    ) -> Result<Self> {
        config.check()?;
        let aggregation = PackedAggregation::new(weights, config.width, config.groups, level)?;
        Ok(Self::from_parts(config, Some(aggregation), None, options, level))
    }

    /// The engine of an ablation of LAPS other than `without_patch_selection`. `weights` are None if it has no groups.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn ablated(
        ablation: Ablation,
        config: AlignmentConfig,
        weights: Option<&AggregationWeights>,
        options: EngineOptions,
        level: SimdLevel,
    ) -> Result<Self> {
        config.check()?;
        let Some(weights) = weights else {
            let config = AlignmentConfig { groups: 0, ..config };
            return Ok(Self::from_parts(config, None, Some(ablation), options, level));
        };
        let aggregation = PackedAggregation::new(weights, config.width, config.groups, level)?;
        Ok(Self::from_parts(config, Some(aggregation), Some(ablation), options, level))
    }

    fn from_parts(
        config: AlignmentConfig,
        aggregation: Option<PackedAggregation>,
        ablation: Option<Ablation>,
        options: EngineOptions,
        level: SimdLevel,
    ) -> Self {
        let threads = match options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Self { config, aggregation, ablation, level, threads, memory_limit: options.memory_limit }
    }

    /// Replaces the weights of the aggregation network, as after a training step.
    ///
    /// # Errors
    /// Weights that do not fit the sizes or are not finite.
    pub fn set_weights(&mut self, weights: &AggregationWeights) -> Result<()> {
        self.aggregation = Some(PackedAggregation::new(weights, self.config.width, self.config.groups, self.level)?);
        Ok(())
    }

    /// Sizes of the alignment.
    pub fn config(&self) -> &AlignmentConfig {
        &self.config
    }

    /// Name of the instruction set: `avx512`, `avx2` or `portable`.
    pub fn instruction_set(&self) -> &'static str {
        self.level.name()
    }

    /// Prepares images of `source` for [`compare`](Self::compare).
    ///
    /// # Errors
    /// Images that do not fit the model or are not finite, and errors of `source`.
    pub fn prepare(&self, source: &dyn ImageSource, images: Range<usize>) -> Result<PreparedImages> {
        self.check_images(source)?;
        if images.start > images.end || images.end > source.len() {
            return Err(invalid(format!("a range within {} images", source.len()), format!("{images:?}")));
        }
        PreparedImages::new(source, images, &self.config, self.aggregation.as_ref(), self.ablation, self.level)
    }

    /// Similarities `(images, captions)` of prepared images, computed on the calling thread.
    ///
    /// # Errors
    /// Captions that do not fit the model.
    pub fn compare(&self, images: &PreparedImages, captions: &CaptionMatrix) -> Result<Array> {
        self.check_captions(captions)?;
        let mut output = vec![0.0; images.len() * captions.len()];
        let words = captions.longest().max(super::plan::BLOCK_WORDS);
        if !output.is_empty() {
            let mut worker = self.worker(words);
            worker.compute(images, captions, 0..captions.len(), &mut output, &mut ());
        }
        Ok(Array::new(&[images.len(), captions.len()], output)?)
    }

    /// Times of the stages of comparing prepared images with the captions `range`, on the calling thread.
    ///
    /// # Errors
    /// Captions that do not fit the model.
    pub(super) fn stages(
        &self,
        images: &PreparedImages,
        captions: &CaptionMatrix,
        range: Range<usize>,
    ) -> Result<StageTimes> {
        self.check_captions(captions)?;
        if range.start > range.end || range.end > captions.len() {
            return Err(invalid(format!("a range within {} captions", captions.len()), format!("{range:?}")));
        }
        let mut output = vec![0.0; images.len() * range.len()];
        let mut worker = self.worker(captions.longest().max(super::plan::BLOCK_WORDS));
        // The first run warms the caches up.
        worker.compute(images, captions, range.clone(), &mut output, &mut ());
        let began = Instant::now();
        worker.compute(images, captions, range.clone(), &mut output, &mut ());
        let whole = began.elapsed();
        let mut stopwatch = Stopwatch::start();
        worker.compute(images, captions, range, &mut output, &mut stopwatch);
        Ok(StageTimes { pairs: output.len(), stages: stopwatch.times(), whole })
    }

    /// All similarities, `(images, captions)`.
    ///
    /// # Errors
    /// Embeddings that do not fit the model or are not finite, and errors of `images`.
    pub fn similarities(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<Array> {
        whole_matrix(images.len(), captions.len(), |sink| {
            self.run(images, captions, &self.plan(images.len(), captions)?, sink)
        })
    }

    /// The largest tiles that fit into the memory limit.
    ///
    /// # Errors
    /// A memory limit that is too small for one tile.
    pub fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        self.planner().plan(images, captions)
    }

    fn planner(&self) -> Planner<'_> {
        let Self { ref config, ref aggregation, ablation, level, threads, memory_limit } = *self;
        Planner { config, aggregation: aggregation.as_ref(), ablation, level, threads, memory_limit }
    }

    /// Buffers of one thread for blocks of `block_words` words.
    fn worker(&self, block_words: usize) -> Worker {
        Worker::new(&self.config, self.ablation, self.level, block_words)
    }

    /// Computes the tiles of `plan` that `sink` wants and passes each finished tile to it.
    ///
    /// A similarity does not depend on the plan, the number of threads, or the other images and captions.
    ///
    /// # Errors
    /// Embeddings that do not fit the model or the plan, and errors of `images` and `sink`.
    pub fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn TileSink,
    ) -> Result<RunOutcome> {
        self.check_images(images)?;
        self.check_captions(captions)?;
        plan.check(images, captions)?;
        run_tiles(plan, sink, || TileEngine {
            engine: self,
            images,
            captions,
            worker: self.worker(plan.block_words),
            prepared: None,
        })
    }

    fn check_images(&self, images: &dyn ImageSource) -> Result<()> {
        let expected = [self.config.tokens(), self.config.width];
        if !images.is_empty() && images.shape() != expected {
            return Err(invalid(format!("images of shape {expected:?}"), format!("{:?}", images.shape())));
        }
        Ok(())
    }

    fn check_captions(&self, captions: &CaptionMatrix) -> Result<()> {
        if captions.width() != self.config.width {
            return Err(invalid(format!("captions of width {}", self.config.width), captions.width().to_string()));
        }
        Ok(())
    }
}

/// Work of one thread.
struct TileEngine<'a> {
    engine: &'a Engine,
    images: &'a dyn ImageSource,
    captions: &'a CaptionMatrix,
    worker: Worker,
    /// The images of the last tile.
    prepared: Option<PreparedImages>,
}

impl TileWorker for TileEngine<'_> {
    fn compute(&mut self, tile: &Tile, output: &mut [f32]) -> Result<()> {
        let prepared = self.prepared.take().filter(|block| block.range() == tile.images);
        let block = match prepared {
            Some(block) => block,
            None => self.engine.prepare(self.images, tile.images.clone())?,
        };
        self.worker.compute(&block, self.captions, tile.captions.clone(), output, &mut ());
        self.prepared = Some(block);
        Ok(())
    }

    fn counts(&self) -> PairCounts {
        self.worker.scratch.counts
    }
}

pub(super) fn invalid(expected: String, found: String) -> Error {
    Error::Operation { operation: "similarity", expected, found }
}
