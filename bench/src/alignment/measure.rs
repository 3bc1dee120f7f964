//! The measurement.

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    str::FromStr,
    time::{Duration, Instant},
};

use laps::Backends;
use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, Engine, EngineOptions, ImageSource, SimilarityEngine, Tile,
};
use laps_files::Progress;
use laps_hub::registry::Entry;
use laps_model::{array::Array, encoder::Device};

use super::{
    AlignmentMeasurement, RandomImages, SCHEMA, Stages, inputs::caption_matrix, memory::Watermark, peak_gflops,
    product_flops, weights,
};
use crate::{
    Error, Result,
    machine::{Machine, load},
    progress::StageProgress,
};

/// Number of images whose preparation is timed.
const PREPARED: usize = 16;

/// The similarity engine to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlignmentEngine {
    /// The engine for CPUs.
    #[default]
    Cpu,
    /// The engine on libtorch tensors.
    Torch,
}

impl AlignmentEngine {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Torch => "torch",
        }
    }
}

impl FromStr for AlignmentEngine {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Cpu, Self::Torch].into_iter().find(|engine| engine.name() == name).ok_or_else(|| Error::Argument {
            argument: "engine",
            expected: "`cpu` or `torch`".to_owned(),
            found: format!("`{name}`"),
        })
    }
}

/// The inputs of a measurement.
#[derive(Clone, Debug)]
pub struct AlignmentRequest {
    /// Entry that gives the sizes; its weights are not used.
    pub entry: Entry,
    /// Number of images.
    pub images: NonZeroUsize,
    /// Number of captions.
    pub captions: NonZeroUsize,
    /// Number of threads.
    pub threads: usize,
    /// Memory limit of the engine in bytes, not counting its inputs.
    pub memory_limit: usize,
    /// Random seed of embeddings, lengths and weights.
    pub seed: u64,
    /// The engine.
    pub engine: AlignmentEngine,
    /// Device of the engine on libtorch tensors.
    pub device: Device,
    /// Backends of this program.
    pub backends: Backends,
    /// Generate image embeddings when they are read instead of keeping them in memory, which takes 1.9 GiB for the
    /// 5,000 images of COCO.
    pub images_on_the_fly: bool,
}

/// Measures an engine on random embeddings. The similarities are checked to be finite, and dropped.
///
/// # Errors
/// An engine or device that is not available, and similarities that are not finite.
pub fn measure(request: &AlignmentRequest, progress: &dyn Progress) -> Result<AlignmentMeasurement> {
    let config = AlignmentConfig::of(&request.entry.model);
    let [count, captions] = [request.images.get(), request.captions.get()];
    let engine = open(request, config, &weights(request.seed, &config)?)?;
    let random = RandomImages { seed: request.seed, images: count, config };
    let stage = StageProgress::begin(progress, "generate embeddings", 1);
    let held: Option<Array> = if request.images_on_the_fly { None } else { Some(random.to_array()?) };
    let images: &dyn ImageSource = held.as_ref().map_or(&random as &dyn ImageSource, |held| held);
    let captions_made = caption_matrix(request.seed, captions, config.width)?;
    stage.end("done");
    let words = captions_made.words();
    let load_before = load();
    let on_gpu = matches!(request.engine, AlignmentEngine::Torch) && !engine.description().ends_with("cpu");
    let peak = (!on_gpu).then(|| peak_gflops(request.threads));

    let plan = engine.plan(count, &captions_made)?;
    let stage = StageProgress::begin(progress, "compare", plan.len());
    let mut sum = 0.0;
    let mut finite = true;
    let mut sink = |_: &Tile, similarities: &[f32]| {
        finite &= similarities.iter().all(|value| value.is_finite());
        sum += similarities.iter().map(|&value| f64::from(value)).sum::<f64>();
        stage.advance(1);
        Ok(ControlFlow::Continue(()))
    };
    let watermark = Watermark::reset();
    let began = Instant::now();
    let outcome = engine.run(images, &captions_made, &plan, &mut sink)?;
    let time = began.elapsed();
    let peak_bytes = watermark.above();
    stage.end(&format!("{} pairs in {:.2} s", outcome.counts.pairs, time.as_secs_f64()));
    if !finite {
        return Err(laps_model::Error::Operation {
            operation: "similarity",
            expected: "finite similarities".to_owned(),
            found: "NaN or infinity".to_owned(),
        }
        .into());
    }
    let preparation = prepare(engine.as_ref(), images)?;
    let stages = Stages::measure(engine.as_ref(), images, &captions_made, preparation)?;

    let gflops = product_flops(&config, count, words) / time.as_secs_f64() / 1e9;
    let pairs = outcome.counts.pairs;
    Ok(AlignmentMeasurement {
        schema: SCHEMA,
        entry: request.entry.name.clone(),
        patches: config.patches,
        has_class_token: config.has_class_token,
        kept: config.kept,
        groups: config.groups,
        embed_size: config.width,
        images: count,
        captions,
        words,
        seed: request.seed,
        images_on_the_fly: request.images_on_the_fly,
        engine: request.engine.name(),
        instruction_set: engine.description(),
        threads: request.threads,
        memory_limit: request.memory_limit,
        planned_bytes: plan.bytes,
        input_bytes: captions_made.bytes() + held.map_or(0, |held| 4 * held.values().len()),
        peak_bytes,
        seconds: time.as_secs_f64(),
        us_per_pair: time.as_secs_f64() * 1e6 / pairs as f64,
        preparation_us_per_image: preparation.as_secs_f64() * 1e6,
        stages,
        gflops,
        peak_gflops: peak,
        share_of_peak: peak.map(|peak| gflops / peak),
        pairs,
        pairs_from_all_kept: outcome.counts.from_all_kept,
        tokens_as_vectors: outcome.counts.as_vectors,
        mean_similarity: sum / pairs as f64,
        load_before,
        machine: Machine::here(),
        version: env!("CARGO_PKG_VERSION"),
        commit: crate::commit(),
    })
}

fn open(
    request: &AlignmentRequest,
    config: AlignmentConfig,
    weights: &AggregationWeights,
) -> Result<Box<dyn SimilarityEngine>> {
    let options = EngineOptions { threads: request.threads, memory_limit: request.memory_limit };
    match (request.engine, request.device) {
        (AlignmentEngine::Cpu, Device::Auto | Device::Cpu) => Ok(Box::new(Engine::new(config, weights, options)?)),
        (AlignmentEngine::Cpu, Device::Cuda(_)) => Err(laps::Error::Engine {
            engine: "cpu".to_owned(),
            reason: "it computes on CPUs only".to_owned(),
            hint: "use the engine `torch`, or the device `cpu`".to_owned(),
        }
        .into()),
        (AlignmentEngine::Torch, device) => {
            Ok(request.backends.libtorch()?.similarity(device, config, weights, request.memory_limit)?)
        }
    }
}

/// Preparation time of one image, the shortest of three measurements.
fn prepare(engine: &dyn SimilarityEngine, images: &dyn ImageSource) -> Result<Duration> {
    let count = PREPARED.min(images.len());
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        engine.prepare_only(images, count)?;
        shortest = shortest.min(began.elapsed() / count.max(1) as u32);
    }
    Ok(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(engine: AlignmentEngine, images_on_the_fly: bool) -> AlignmentRequest {
        let [images, captions] = [5, 40].map(|count| NonZeroUsize::new(count).unwrap());
        AlignmentRequest {
            entry: laps_hub::registry::find("shapes_vit").unwrap(),
            images,
            captions,
            threads: 2,
            memory_limit: 1 << 28,
            seed: 3,
            engine,
            device: Device::Cpu,
            backends: Backends::default(),
            images_on_the_fly,
        }
    }

    #[test]
    fn embeddings_generated_on_demand_give_the_same_similarities() {
        let [held, generated] =
            [false, true].map(|on_the_fly| measure(&request(AlignmentEngine::Cpu, on_the_fly), &()).unwrap());
        assert_eq!(held.mean_similarity, generated.mean_similarity);
        assert_eq!([held.pairs, generated.pairs], [200; 2]);
        assert_eq!(held.input_bytes - generated.input_bytes, 4 * 5 * (held.patches + 1) * held.embed_size);
        assert!(held.words >= 40 * 4 && held.words <= 40 * 39);
        let flops = 2 * held.embed_size * 5 * (held.patches + 1) * held.words;
        assert!((held.gflops * held.seconds * 1e9 / flops as f64 - 1.0).abs() < 1e-9);
        assert!((held.us_per_pair * 200.0 / held.seconds - 1e6).abs() < 1.0);
        let stages = held.stages.unwrap();
        assert_eq!(stages.pairs, 200);
        let names: Vec<&str> = stages.stages.iter().map(|stage| stage.name).collect();
        insta::assert_debug_snapshot!(names, @r#"
        [
            "preparation",
            "packing",
            "product",
            "scores",
            "selection",
            "groups",
            "norms",
            "fused",
            "maxima",
        ]
        "#);
        assert!(stages.stages.iter().all(|stage| stage.us_per_pair > 0.0), "{stages:?}");
        let shares: f64 = stages.stages.iter().map(|stage| stage.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        let other = AlignmentRequest { seed: 4, ..request(AlignmentEngine::Cpu, false) };
        assert_ne!(measure(&other, &()).unwrap().mean_similarity, held.mean_similarity);
    }

    #[test]
    fn cpu_engine_rejects_a_gpu() {
        let request = AlignmentRequest { device: Device::Cuda(0), ..request(AlignmentEngine::Cpu, false) };
        assert!(measure(&request, &()).is_err());
        assert!("gpu".parse::<AlignmentEngine>().is_err());
    }
}
