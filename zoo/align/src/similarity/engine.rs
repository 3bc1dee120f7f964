//! The engine: configuration, weights, threads.

use std::{
    ops::{ControlFlow, Range},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use super::{
    captions::CaptionMatrix,
    config::AlignmentConfig,
    images::PreparedImages,
    plan::{Plan, Planner, Tile},
    scratch::Counts,
    simd::Level,
    sink::Sink,
    source::ImageSource,
    stages::{StageTimes, Stopwatch},
    weights::{Aggregation, AggregationWeights},
    worker::Worker,
};
use crate::{Error, Result};
use laps_model::array::Array;

/// How the engine may use the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Threads; 0 stands for one for each processor.
    pub threads: usize,
    /// Bytes that all threads may take together, the inputs and the finished matrix not counted.
    pub memory_limit: usize,
}

impl Default for EngineOptions {
    /// All processors, 1 GiB.
    fn default() -> Self {
        Self { threads: 0, memory_limit: 1 << 30 }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether every tile was computed that the sink wanted; not so if it asked to stop.
    pub finished: bool,
    /// What was done.
    pub counts: Counts,
}

/// Computes similarities of images and captions, exactly and from embeddings.
#[derive(Debug)]
pub struct Engine {
    config: AlignmentConfig,
    pub(super) aggregation: Aggregation,
    pub(super) level: Level,
    threads: usize,
    memory_limit: usize,
}

impl Engine {
    /// An engine for one model.
    pub fn new(config: AlignmentConfig, weights: &AggregationWeights, options: EngineOptions) -> Result<Self> {
        Self::with_level(config, weights, options, Level::detect())
    }

    /// The same with an instruction set that is not the widest one.
    pub fn with_level(
        config: AlignmentConfig,
        weights: &AggregationWeights,
        options: EngineOptions,
        level: Level,
    ) -> Result<Self> {
        config.check()?;
        let aggregation = Aggregation::new(weights, config.width, config.groups, level)?;
        let threads = match options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Ok(Self { config, aggregation, level, threads, memory_limit: options.memory_limit })
    }

    /// The sizes it works with.
    pub fn config(&self) -> &AlignmentConfig {
        &self.config
    }

    /// The instruction set that it uses: `avx512`, `avx2` or `portable`.
    pub fn instruction_set(&self) -> &'static str {
        self.level.name()
    }

    /// Prepares some images of `source` for [`compare`](Self::compare).
    pub fn prepare(&self, source: &dyn ImageSource, images: Range<usize>) -> Result<PreparedImages> {
        self.check_images(source)?;
        if images.start > images.end || images.end > source.len() {
            return Err(bad(format!("a range within {} images", source.len()), format!("{images:?}")));
        }
        PreparedImages::new(source, images, &self.config, &self.aggregation, self.level)
    }

    /// Similarities `(images, captions)` of prepared images, on the calling thread.
    pub fn compare(&self, images: &PreparedImages, captions: &CaptionMatrix) -> Result<Array> {
        self.check_captions(captions)?;
        let mut output = vec![0.0; images.len() * captions.len()];
        let words = captions.longest().max(super::plan::BLOCK_WORDS);
        if !output.is_empty() {
            let mut worker = Worker::new(&self.config, self.level, words);
            worker.compute(images, captions, 0..captions.len(), &mut output, &mut ());
        }
        Ok(Array::new(&[images.len(), captions.len()], output)?)
    }

    /// What the stages of comparing prepared images with the captions `range` take, on the calling thread.
    pub fn stages(&self, images: &PreparedImages, captions: &CaptionMatrix, range: Range<usize>) -> Result<StageTimes> {
        self.check_captions(captions)?;
        if range.start > range.end || range.end > captions.len() {
            return Err(bad(format!("a range within {} captions", captions.len()), format!("{range:?}")));
        }
        let mut output = vec![0.0; images.len() * range.len()];
        let mut worker = Worker::new(&self.config, self.level, captions.longest().max(super::plan::BLOCK_WORDS));
        // The first time only fetches what is worked on.
        worker.compute(images, captions, range.clone(), &mut output, &mut ());
        let began = Instant::now();
        worker.compute(images, captions, range.clone(), &mut output, &mut ());
        let whole = began.elapsed();
        let mut stopwatch = Stopwatch::start();
        worker.compute(images, captions, range, &mut output, &mut stopwatch);
        Ok(StageTimes { pairs: output.len(), stages: stopwatch.times(), whole })
    }

    /// Similarity of one image `(tokens, width)`, the class token first where there is one, and one caption
    /// `(words, width)`.
    pub fn score(&self, image: &Array, caption: &Array) -> Result<f32> {
        let [tokens, width] = [self.config.tokens(), self.config.width];
        if image.dims() != [tokens, width] {
            return Err(bad(format!("an image of shape [{tokens}, {width}]"), format!("{:?}", image.dims())));
        }
        let images = self.prepare(&Array::new(&[1, tokens, width], image.values().to_vec())?, 0..1)?;
        let captions = CaptionMatrix::from_arrays(std::slice::from_ref(caption), width)?;
        Ok(self.compare(&images, &captions)?.values()[0])
    }

    /// All similarities, `(images, captions)`.
    pub fn similarities(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<Array> {
        let [rows, columns] = [images.len(), captions.len()];
        let mut matrix = vec![0.0; rows * columns];
        let mut sink = |tile: &Tile, similarities: &[f32]| {
            tile.place(similarities, columns, &mut matrix);
            Ok(ControlFlow::Continue(()))
        };
        self.run(images, captions, &self.plan(rows, captions)?, &mut sink)?;
        Ok(Array::new(&[rows, columns], matrix)?)
    }

    /// The largest tiles that fit into the memory limit.
    pub fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        self.planner().plan(images, captions)
    }

    fn planner(&self) -> Planner<'_> {
        let Self { config, aggregation, level, threads, memory_limit } = self;
        Planner { config, aggregation, level: *level, threads: *threads, memory_limit: *memory_limit }
    }

    /// Computes the tiles of `plan` that `sink` wants, and hands each to it when it is finished.
    ///
    /// The values do not depend on the plan, on the number of threads or on what other images and captions there are.
    pub fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        self.check_images(images)?;
        self.check_captions(captions)?;
        if [plan.images, plan.captions] != [images.len(), captions.len()] || plan.block_words < captions.longest() {
            let found = format!("{} images and {} captions", images.len(), captions.len());
            return Err(bad(format!("the inputs that the plan was made for: {plan:?}"), found));
        }
        let shared = Shared {
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            sink: Mutex::new(sink),
            end: Mutex::new((Counts::default(), None)),
        };
        thread::scope(|scope| {
            for _ in 1..plan.threads.min(plan.len()) {
                scope.spawn(|| self.work(images, captions, plan, &shared));
            }
            self.work(images, captions, plan, &shared);
        });
        let finished = !shared.stopped.load(Ordering::Relaxed);
        match shared.end.into_inner().unwrap_or_else(PoisonError::into_inner) {
            (_, Some(error)) => Err(error),
            (counts, None) => Ok(Outcome { finished, counts }),
        }
    }

    /// One thread: takes the next tile until there is none or someone stops.
    fn work(&self, images: &dyn ImageSource, captions: &CaptionMatrix, plan: &Plan, shared: &Shared<'_>) {
        let mut worker = Worker::new(&self.config, self.level, plan.block_words);
        let result = self.take_tiles(images, captions, plan, shared, &mut worker);
        let mut end = shared.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.0.add(worker.scratch.counts);
        if let Err(error) = result {
            shared.stopped.store(true, Ordering::Relaxed);
            end.1.get_or_insert(error);
        }
    }

    fn take_tiles(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        shared: &Shared<'_>,
        worker: &mut Worker,
    ) -> Result<()> {
        let mut output = vec![0.0; plan.tile_images * plan.tile_captions];
        let mut prepared: Option<PreparedImages> = None;
        while !shared.stopped.load(Ordering::Relaxed) {
            let index = shared.next.fetch_add(1, Ordering::Relaxed);
            if index >= plan.len() {
                break;
            }
            let tile = plan.tile(index);
            if !shared.sink.lock().unwrap_or_else(PoisonError::into_inner).wants(&tile) {
                continue;
            }
            prepared = prepared.filter(|block| block.range() == tile.images);
            let block = match &mut prepared {
                Some(block) => block,
                none => none.insert(self.prepare(images, tile.images.clone())?),
            };
            let output = &mut output[..tile.images.len() * tile.captions.len()];
            worker.compute(block, captions, tile.captions.clone(), output, &mut ());
            let mut sink = shared.sink.lock().unwrap_or_else(PoisonError::into_inner);
            if sink.accept(&tile, output)?.is_break() {
                shared.stopped.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn check_images(&self, images: &dyn ImageSource) -> Result<()> {
        let expected = [self.config.tokens(), self.config.width];
        if !images.is_empty() && images.shape() != expected {
            return Err(bad(format!("images of shape {expected:?}"), format!("{:?}", images.shape())));
        }
        Ok(())
    }

    fn check_captions(&self, captions: &CaptionMatrix) -> Result<()> {
        if captions.width() != self.config.width {
            return Err(bad(format!("captions of width {}", self.config.width), captions.width().to_string()));
        }
        Ok(())
    }
}

/// What the threads of a run share.
struct Shared<'a> {
    next: AtomicUsize,
    stopped: AtomicBool,
    sink: Mutex<&'a mut dyn Sink>,
    end: Mutex<(Counts, Option<Error>)>,
}

fn bad(expected: String, found: String) -> Error {
    Error::Operation { operation: "similarity", expected, found }
}
