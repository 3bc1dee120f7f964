//! The measurements.

use std::{num::NonZeroUsize, time::Instant};

use laps::{EngineUsed, StepBenchmark, embedded};
use laps_align::similarity::{AggregationWeights, AlignmentConfig, Engine, EngineOptions, SimilarityEngine};
use laps_data::{
    Loader, LoaderOptions, Split,
    image::{self, Preprocessing},
};
use laps_files::Progress;
use laps_hub::registry::TrainPrecision;
use laps_model::{models, params::Parameter};

use super::{
    BenchPart, EncoderCase, SCHEMA, TimingRequest, TimingResult, TimingRow, Versions,
    inputs::{pixels, tokens},
    steps::StepTimes,
};
use crate::{
    Error, Result,
    alignment::{RandomImages, caption_matrix},
    machine::{Machine, load},
    progress::StageProgress,
    reproduce::PREFETCH,
};

/// Memory limit of the similarity engine, in bytes.
const MEMORY: usize = 1 << 30;

/// Measures the parts of a request, one after another.
///
/// # Errors
/// Those of [`TimingRequest::check`] and of the engines.
pub fn measure(request: &TimingRequest, progress: &dyn Progress) -> Result<TimingResult> {
    request.check()?;
    let load_before = load();
    let mut rows = Vec::new();
    for &part in &request.parts {
        let stage = StageProgress::begin(progress, part.name(), 1);
        match part {
            BenchPart::Image | BenchPart::Text => {
                for case in &request.encoders {
                    rows.extend(encode(request, part, case)?);
                }
            }
            BenchPart::Alignment => rows.extend(align(request)?),
            BenchPart::Training => rows.extend(train(request)?),
            BenchPart::Loading | BenchPart::Decoding => rows.extend(files(request, part)?),
        }
        stage.end("done");
    }
    Ok(TimingResult {
        schema: SCHEMA,
        entry: request.entry.name.clone(),
        config_sha256: request.entry.config_sha256.clone(),
        weights: request.weights.clone(),
        scenario: request.scenario,
        warm_up: request.warm_up,
        repeats: request.repeats,
        seed: request.seed,
        threads: request.threads,
        machine: Machine::here(),
        load_before,
        versions: Versions {
            laps_zoo: env!("CARGO_PKG_VERSION").to_owned(),
            commit: crate::commit().map(str::to_owned),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        },
        rows,
    })
}

/// The fields of a row that do not come from times.
struct RowLabels<'a> {
    part: BenchPart,
    engine: &'a str,
    flavour: Option<String>,
    version: &'a str,
    device: &'a str,
    precision: &'a str,
    batch: usize,
}

impl RowLabels<'_> {
    /// A row for iterations of `items` items each.
    fn row(&self, steps: &StepTimes, items: usize) -> TimingRow {
        TimingRow {
            part: self.part,
            engine: self.engine.to_owned(),
            flavour: self.flavour.clone(),
            version: self.version.to_owned(),
            device: self.device.to_owned(),
            precision: self.precision.to_owned(),
            batch: self.batch,
            items: self.part.item().to_owned(),
            throughput: steps.rate() * items as f64,
            p50_ms: steps.percentile(50),
            p90_ms: steps.percentile(90),
            p99_ms: steps.percentile(99),
            parameters: None,
            gmacs: None,
            peak_bytes: steps.peak_bytes,
            file_bytes: None,
            load_ms: None,
        }
    }
}

/// Number of parameters of a part, and its 10^9 multiply-adds.
fn sizes(request: &TimingRequest, part: BenchPart) -> Result<(Option<usize>, Option<f64>)> {
    let (prefix, index) = match part {
        BenchPart::Image => ("img_enc.", 0),
        BenchPart::Text => ("txt_enc.", 1),
        BenchPart::Alignment => ("cross_net.", 2),
        BenchPart::Training => ("", 3),
        BenchPart::Loading | BenchPart::Decoding => return Ok((None, None)),
    };
    let parameters = models::parameters(&request.entry.model)?;
    let own = parameters.iter().filter(|parameter| parameter.name.starts_with(prefix)).map(Parameter::elements).sum();
    // The multiply-adds of a training step vary: only pairs with a gradient have a backward pass.
    let counted = request.multiply_adds.get(index).copied().flatten();
    Ok((Some(own), counted.map(|count| count as f64 / 1e9)))
}

fn on_gpu(device: &str) -> bool {
    device != "cpu"
}

fn encode(request: &TimingRequest, part: BenchPart, case: &EncoderCase) -> Result<Vec<TimingRow>> {
    let sha256 = request.checkpoint.sha256()?;
    let began = Instant::now();
    let (encoder, EngineUsed { name, version, device, .. }) =
        case.backend.encoder(&request.entry, &request.checkpoint, &sha256)?;
    let load_ms = began.elapsed().as_secs_f64() * 1e3;
    let (parameters, gmacs) = sizes(request, part)?;
    let precision = case.precision.clone();
    let mut rows = Vec::new();
    for batch in request.batches() {
        let steps = if part == BenchPart::Image {
            let pixels = pixels(&request.entry, batch, request.seed)?;
            // The result is in CPU memory, so the step includes the transfer from the device.
            StepTimes::measure(request.warm_up, request.repeats, || encoder.encode_images(&pixels))?
        } else {
            let tokens = tokens(&request.entry, batch, request.seed);
            let captions: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
            StepTimes::measure(request.warm_up, request.repeats, || encoder.encode_captions(&captions))?
        };
        let labels = RowLabels {
            part,
            engine: &name,
            flavour: case.flavour.clone(),
            version: &version,
            device: &device,
            precision: &precision,
            batch,
        };
        let mut row = labels.row(&steps, batch);
        row.peak_bytes = row.peak_bytes.filter(|_| !on_gpu(&device));
        rows.push(TimingRow { parameters, gmacs, file_bytes: case.file_bytes, load_ms: Some(load_ms), ..row });
    }
    Ok(rows)
}

fn align(request: &TimingRequest) -> Result<Vec<TimingRow>> {
    let config = AlignmentConfig::of(&request.entry.model);
    let weights = AggregationWeights::load(|name| Ok(request.checkpoint.read(name)?))?;
    let options = EngineOptions { threads: request.threads, memory_limit: MEMORY };
    let cpu: Box<dyn SimilarityEngine> = Box::new(Engine::new(config, &weights, options)?);
    let mut engines = vec![("cpu", cpu.description(), "cpu".to_owned(), cpu)];
    if let Some(torch) = request.torch {
        let engine = torch.similarity(request.device, config, &weights, MEMORY)?;
        let description = engine.description();
        let device = description.rsplit(' ').next().unwrap_or_default().to_owned();
        engines.push(("torch", torch.info().version.to_owned(), device, engine));
    }
    let (parameters, gmacs) = sizes(request, BenchPart::Alignment)?;
    let mut rows = Vec::new();
    for batch in request.batches() {
        let images = RandomImages { seed: request.seed, images: batch, config }.to_array()?;
        let matrix = caption_matrix(request.seed, batch, config.width)?;
        for (engine, version, device, similarity) in &engines {
            let steps =
                StepTimes::measure(request.warm_up, request.repeats, || similarity.similarities(&images, &matrix))?;
            let (part, flavour) = (BenchPart::Alignment, None);
            let labels = RowLabels { part, engine, flavour, version, device, precision: "fp32", batch };
            let mut row = labels.row(&steps, batch * batch);
            row.peak_bytes = row.peak_bytes.filter(|_| !on_gpu(device));
            rows.push(TimingRow { parameters, gmacs, ..row });
        }
    }
    Ok(rows)
}

/// Training steps on libtorch.
fn train(request: &TimingRequest) -> Result<Vec<TimingRow>> {
    let Some(torch) = request.torch else { return Ok(Vec::new()) };
    let precision = match request.entry.train.precision {
        TrainPrecision::F32 => "fp32",
        TrainPrecision::Bf16 => "bf16",
        TrainPrecision::Fp16 => "fp16",
    };
    let (parameters, gmacs) = sizes(request, BenchPart::Training)?;
    let version = torch.info().version;
    let mut rows = Vec::new();
    for batch in request.batches().into_iter().filter(|&batch| batch > 1) {
        let mut step = torch.training_step(StepBenchmark {
            entry: &request.entry,
            checkpoint: &request.checkpoint,
            device: request.device,
            threads: request.threads,
            seed: request.seed,
            pixels: pixels(&request.entry, batch, request.seed)?,
            tokens: tokens(&request.entry, batch, request.seed),
        })?;
        let device = step.device();
        let steps = StepTimes::measure(request.warm_up, request.repeats, || step.step());
        // The next measurement uses all threads again.
        step.release_threads();
        let (part, engine, flavour) = (BenchPart::Training, "torch", None);
        let labels = RowLabels { part, engine, flavour, version, device: &device, precision, batch };
        let mut row = labels.row(&steps?, batch);
        row.peak_bytes = row.peak_bytes.filter(|_| !on_gpu(&device));
        rows.push(TimingRow { parameters, gmacs, ..row });
    }
    Ok(rows)
}

/// Loading or decoding of the first images of the test split, repeated as often as the batch needs.
fn files(request: &TimingRequest, part: BenchPart) -> Result<Vec<TimingRow>> {
    let entry = &request.entry;
    let paths = embedded::data_paths(entry, request.data.as_deref(), None)?;
    let split = Split::open(&paths.captions, &entry.data.test)?;
    let version = env!("CARGO_PKG_VERSION");
    let mut rows = Vec::new();
    for batch in request.batches() {
        let count = if part == BenchPart::Loading { PREFETCH * batch } else { batch };
        let limit = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let mut files = split.clone().limit(limit).image_files(&paths.images);
        if files.is_empty() {
            return Err(Error::Argument {
                argument: "data",
                expected: "a split with images".to_owned(),
                found: "none".to_owned(),
            });
        }
        files = files.iter().cycle().take(count).cloned().collect();
        let (engine, steps) = if part == BenchPart::Loading {
            let preprocessing = Preprocessing::of(&entry.model.image);
            let options = LoaderOptions { batch_size: batch, threads: request.threads, prefetch: PREFETCH };
            let steps = StepTimes::measure::<_, Error>(request.warm_up, request.repeats, || {
                for loaded in Loader::start(files.clone(), preprocessing, options)? {
                    drop(loaded?);
                }
                Ok(())
            })?;
            ("loader", steps)
        } else {
            let steps = StepTimes::measure::<_, Error>(request.warm_up, request.repeats, || {
                for file in &files {
                    drop(
                        image::read(&file.path)
                            .map_err(|source| laps::Error::Image { path: file.path.clone(), source })?,
                    );
                }
                Ok(())
            })?;
            ("decoder", steps)
        };
        let labels = RowLabels { part, engine, flavour: None, version, device: "cpu", precision: "8 bits", batch };
        rows.push(labels.row(&steps, count));
    }
    Ok(rows)
}
