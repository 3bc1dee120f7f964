//! The libtorch similarity engine against golden tensors, the plain definition and the CPU engine.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../model/tests/support/mod.rs"]
mod support;

use std::{ops::ControlFlow, rc::Rc};

use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, PairCounts, RunOutcome, Tile, TileSink,
};
use laps_model::{
    array::Array,
    encoder::pad_words,
    models::{alignment::Alignment, config::ModelConfig},
    params::{ParamPath, Parameter},
    random::SplitMix64,
    tensor::{DeviceTensor, Tensor},
};
use laps_torch::{TorchDevice, baseline::PerCaption, similarity::TorchEngine};
use support::{Tensors, device, difference, swin_tiny, vit_tiny};

/// f32 sums in another order. The bound of the reference.
const TOLERANCE: f32 = 2e-6;
const MEMORY_LIMIT: usize = 1 << 28;

fn torch_device() -> TorchDevice {
    TorchDevice::open(device()).unwrap()
}

fn geometry(config: ModelConfig, width: usize) -> AlignmentConfig {
    AlignmentConfig::of(&ModelConfig { embed_size: width, ..config })
}

/// Removes the padding of captions.
fn unpad(padded: &Array, lengths: &Array) -> Vec<Array> {
    lengths
        .values()
        .iter()
        .enumerate()
        .map(|(row, &length)| {
            let words = padded.rows(row..row + 1).unwrap().narrow(1, 0, length as usize).unwrap();
            let shape = words.dims()[1..].to_vec();
            Array::new(&shape, words.into_values()).unwrap()
        })
        .collect()
}

fn normal(name: &str, shape: &[usize], std: f64) -> Array {
    let mut random = SplitMix64::named(11, name);
    let count = shape.iter().product();
    Array::new(shape, (0..count).map(|_| (random.normal() * std) as f32).collect()).unwrap()
}

/// Random weights whose logits have a standard deviation of about `scale`.
fn weights(config: &AlignmentConfig, scale: f32) -> AggregationWeights {
    let [width, hidden, groups] = [config.width, config.width / 5, config.groups];
    AggregationWeights {
        norm_weight: normal("norm weight", &[width], 1.0),
        norm_bias: normal("norm bias", &[width], 0.1),
        hidden_weight: normal("hidden weight", &[hidden, width], (width as f64).powf(-0.5)),
        hidden_bias: normal("hidden bias", &[hidden], 0.1),
        group_weight: normal("group weight", &[groups, hidden], (hidden as f64).powf(-0.5)),
        group_bias: normal("group bias", &[groups], 0.1),
        scale: Array::new(&[1, 1, 1], vec![scale]).unwrap(),
    }
}

fn random(config: &AlignmentConfig, images: usize) -> (Array, Vec<Array>) {
    let images = normal("images", &[images, config.tokens(), config.width], 1.0);
    let lengths = [3, 14, 9, 22, 1, 12, 36, 17, 11, 12];
    let caption = |(row, &length): (usize, &usize)| normal(&format!("caption {row}"), &[length, config.width], 1.0);
    (images, lengths.iter().enumerate().map(caption).collect())
}

fn run_engine(
    config: AlignmentConfig,
    weights: &AggregationWeights,
    images: &Array,
    captions: &[Array],
    limit: usize,
) -> (Array, RunOutcome) {
    let engine = TorchEngine::new(config, weights, torch_device(), limit).unwrap();
    let captions = CaptionMatrix::from_arrays(captions, config.width).unwrap();
    let [rows, columns] = [images.dims()[0], captions.len()];
    let plan = engine.plan(rows, &captions).unwrap();
    assert!(plan.bytes <= limit, "{plan:?}");
    let mut matrix = vec![f32::NAN; rows * columns];
    let mut sink = |tile: &Tile, values: &[f32]| {
        tile.copy_to(values, columns, &mut matrix);
        Ok(ControlFlow::Continue(()))
    };
    let outcome = engine.run(images, &captions, &plan, &mut sink).unwrap();
    assert!(outcome.finished);
    (Array::new(&[rows, columns], matrix).unwrap(), outcome)
}

#[test]
fn golden_alignments_match_at_the_published_geometries() {
    for (name, model) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        let golden = Tensors::open(&format!("{name}_align.safetensors"));
        let weights = AggregationWeights::load(|name| Ok(golden.get(name))).unwrap();
        let captions = unpad(&golden.get("cap_embs"), &golden.get("lengths"));
        let (found, _) = run_engine(geometry(model, 64), &weights, &golden.get("img_embs"), &captions, MEMORY_LIMIT);
        let drift = difference(&found, &golden.get("sims"));
        println!("{name}: {drift:e}");
        assert!(drift <= TOLERANCE, "{name}: {drift:e}");
    }
}

#[test]
fn golden_embeddings_of_the_tiny_models_match() {
    for (name, model) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        let forward = Tensors::open(&format!("{name}_forward.safetensors"));
        let parameters = Tensors::open(&format!("{name}_tiny.safetensors"));
        let weights = AggregationWeights::load(|name| Ok(parameters.get(name))).unwrap();
        let captions = unpad(&forward.get("cap_emb"), &forward.get("lengths"));
        let config = AlignmentConfig::of(&model);
        let (found, _) = run_engine(config, &weights, &forward.get("img_emb"), &captions, MEMORY_LIMIT);
        let drift = difference(&found, &forward.get("sims"));
        println!("{name}: {drift:e}");
        assert!(drift <= TOLERANCE, "{name}: {drift:e}");
    }
}

/// The alignment of the model, the loop over captions and the engine, on random embeddings of dim 512.
#[test]
fn engine_definition_and_baseline_agree() {
    for (name, model) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        let model = ModelConfig { embed_size: 512, ..model };
        let config = AlignmentConfig::of(&model);
        let weights = weights(&config, 1.0);
        let (images, captions) = random(&config, 7);
        let (found, outcome) = run_engine(config, &weights, &images, &captions, MEMORY_LIMIT);
        assert_eq!(outcome.counts, PairCounts { pairs: 70, from_all_kept: 0, as_vectors: 0 });

        let parameters = weights.clone();
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| {
            Ok(parameters.parameter(&parameter.name).cloned().unwrap())
        }));
        let alignment = Alignment::<Array>::new(&model, &path.sub("cross_net")).unwrap();
        let (words, mask) = pad_words(&captions).unwrap();
        let defined = alignment.forward(&images, &words, &mask).unwrap().download().unwrap();
        let drift = difference(&found, &defined);
        println!("{name}, definition: {drift:e}");
        assert!(drift <= TOLERANCE, "{name}: {drift:e}");

        let baseline = PerCaption::new(config, &weights, torch_device(), &images, 0..7).unwrap();
        let baseline = baseline.similarities(&captions).unwrap().permute(&[1, 0]).unwrap();
        let drift = difference(&found, &baseline);
        println!("{name}, per caption: {drift:e}");
        assert!(drift <= TOLERANCE, "{name}: {drift:e}");
    }
}

/// Compares with the CPU engine, which is tested against the definition in f64.
fn assert_matches_cpu_engine(config: AlignmentConfig, weights: &AggregationWeights, images: &Array) -> PairCounts {
    let (_, captions) = random(&config, 1);
    let (found, outcome) = run_engine(config, weights, images, &captions, MEMORY_LIMIT);
    let engine = Engine::new(config, weights, EngineOptions::default()).unwrap();
    let captions = CaptionMatrix::from_arrays(&captions, config.width).unwrap();
    let drift = difference(&found, &engine.similarities(images, &captions).unwrap());
    println!("{config:?}: {drift:e}, {:?}", outcome.counts);
    assert!(drift <= TOLERANCE, "{config:?}: {drift:e}");
    outcome.counts
}

/// Logits that differ by 60: if the best patch is dropped, the squared factors of a group underflow in f32.
#[test]
fn underflowing_groups_are_computed_as_vectors() {
    for model in [vit_tiny(), swin_tiny()] {
        let config = geometry(model, 512);
        let counts = assert_matches_cpu_engine(config, &weights(&config, 60.0), &random(&config, 3).0);
        assert!(counts.as_vectors > 0, "{counts:?}");
    }
}

/// Patches in nearly opposite pairs, all kept: every group is a small difference of large sums. No patch is dropped, so the
/// fused patch is the zero vector.
#[test]
fn cancelling_groups_are_computed_as_vectors() {
    for model in [vit_tiny(), swin_tiny()] {
        let config = geometry(model, 512);
        let config = AlignmentConfig { kept: config.patches, ..config };
        let mut values = random(&config, 2).0.into_values();
        let first = usize::from(config.has_class_token);
        for image in values.chunks_exact_mut(config.tokens() * config.width) {
            for pair in image[first * config.width..].chunks_exact_mut(2 * config.width) {
                let (one, other) = pair.split_at_mut(config.width);
                one.iter().zip(other).for_each(|(one, other)| *other = 0.15 * *other - one);
            }
        }
        let images = Array::new(&[2, config.tokens(), config.width], values).unwrap();
        let counts = assert_matches_cpu_engine(config, &weights(&config, 0.01), &images);
        assert!(counts.as_vectors > 0, "{counts:?}");
    }
}

/// A fused patch of two nearly opposite patches.
#[test]
fn cancelling_fused_patch_is_computed_as_a_vector() {
    let config = AlignmentConfig { patches: 8, has_class_token: true, kept: 6, groups: 2, width: 64 };
    let mut values = random(&config, 1).0.into_values();
    // The mean patch points along the other patches, so this pair is dropped.
    let (head, tail) = values.split_at_mut(7 * 64);
    for patch in head[64..].chunks_exact_mut(64) {
        patch[0] += 40.0;
    }
    let noise = tail[64..].to_vec();
    for (entry, slot) in tail[..64].iter_mut().enumerate() {
        *slot = if entry == 0 { -0.01 } else { noise[entry] };
    }
    for (entry, slot) in tail[64..].iter_mut().enumerate() {
        *slot = if entry == 0 { -0.01 } else { 0.02 * (entry as f32).sin() - noise[entry] };
    }
    let images = Array::new(&[1, config.tokens(), 64], values).unwrap();
    let counts = assert_matches_cpu_engine(config, &weights(&config, 1.0), &images);
    assert!(counts.as_vectors > 0, "{counts:?}");
}

#[test]
fn unusual_sizes_match_the_cpu_engine() {
    for config in [
        AlignmentConfig { patches: 49, has_class_token: true, kept: 49, groups: 23, width: 96 },
        AlignmentConfig { patches: 49, has_class_token: false, kept: 1, groups: 3, width: 20 },
        AlignmentConfig { patches: 1, has_class_token: true, kept: 1, groups: 1, width: 5 },
        AlignmentConfig { patches: 5, has_class_token: false, kept: 3, groups: 9, width: 33 },
    ] {
        assert_matches_cpu_engine(config, &weights(&config, 1.0), &random(&config, 5).0);
    }
}

/// Small tiles and blocks of single captions match one large block, and the error names the minimum memory.
#[test]
fn memory_limit_does_not_change_the_result() {
    for model in [vit_tiny(), swin_tiny()] {
        let config = geometry(model, 512);
        let weights = weights(&config, 1.0);
        let (images, captions) = random(&config, 5);
        let (whole, _) = run_engine(config, &weights, &images, &captions, MEMORY_LIMIT);
        let matrix = CaptionMatrix::from_arrays(&captions, 512).unwrap();
        let plan = |limit: usize| TorchEngine::new(config, &weights, torch_device(), limit).unwrap().plan(5, &matrix);
        let error = plan(0).unwrap_err().to_string();
        let least: usize = error.split(' ').find_map(|word| word.parse().ok()).unwrap();
        assert!(plan(least - 1).is_err());
        assert_eq!(plan(least).unwrap().bytes, least);
        let small = plan(least).unwrap();
        assert_eq!([small.tile_images, small.tile_captions], [1, 1]);
        assert_ne!(plan(MEMORY_LIMIT).unwrap().len(), small.len());
        for limit in [least, 2 * least] {
            let (found, outcome) = run_engine(config, &weights, &images, &captions, limit);
            assert!(difference(&found, &whole) <= TOLERANCE);
            assert_eq!(outcome.counts.pairs, 50);
        }
    }
}

/// Records accepted tiles and stops after a number of them.
struct RecordingSink {
    tiles: Vec<usize>,
    stop_after: usize,
}

impl TileSink for RecordingSink {
    fn wants(&mut self, tile: &Tile) -> bool {
        !self.tiles.contains(&tile.index)
    }

    fn accept(&mut self, tile: &Tile, _: &[f32]) -> laps_align::Result<ControlFlow<()>> {
        self.tiles.push(tile.index);
        Ok(if self.tiles.len() == self.stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

#[test]
fn stopped_run_resumes_with_the_missing_tiles() {
    let config = AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 64 };
    let weights = weights(&config, 1.0);
    let (images, captions) = random(&config, 6);
    let captions = CaptionMatrix::from_arrays(&captions, 64).unwrap();
    let engine = TorchEngine::new(config, &weights, torch_device(), MEMORY_LIMIT).unwrap();
    let mut plan = engine.plan(6, &captions).unwrap();
    (plan.tile_images, plan.tile_captions) = (4, 3);
    let mut sink = RecordingSink { tiles: Vec::new(), stop_after: 3 };
    assert!(!engine.run(&images, &captions, &plan, &mut sink).unwrap().finished);
    sink.stop_after = 0;
    let outcome = engine.run(&images, &captions, &plan, &mut sink).unwrap();
    assert!(outcome.finished);
    assert_eq!(sink.tiles, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(outcome.counts.pairs < 60);
}

#[test]
fn invalid_input_is_rejected() {
    let config = AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 64 };
    let right = weights(&config, 1.0);
    let engine = TorchEngine::new(config, &right, torch_device(), MEMORY_LIMIT).unwrap();
    let (images, captions) = random(&config, 2);
    let captions = CaptionMatrix::from_arrays(&captions, 64).unwrap();
    assert!(engine.similarities(&normal("images", &[2, 50, 64], 1.0), &captions).is_err());
    assert!(engine.similarities(&images, &CaptionMatrix::new(63)).is_err());
    assert_eq!(engine.similarities(&images, &CaptionMatrix::new(64)).unwrap().dims(), [2, 0]);
    let none = Array::new(&[0, 49, 64], Vec::new()).unwrap();
    assert_eq!(engine.similarities(&none, &captions).unwrap().dims(), [0, 10]);
    let mut values = images.into_values();
    values[49 * 64 + 5] = f32::NAN;
    let images = Array::new(&[2, 49, 64], values).unwrap();
    let error = engine.similarities(&images, &captions).unwrap_err().to_string();
    assert!(error.contains("image 1"), "{error}");
    let wrong = AggregationWeights { group_bias: normal("group bias", &[22], 1.0), ..right.clone() };
    assert!(TorchEngine::new(config, &wrong, torch_device(), MEMORY_LIMIT).is_err());
    let wrong = AggregationWeights { scale: Array::new(&[1], vec![f32::INFINITY]).unwrap(), ..right };
    assert!(TorchEngine::new(config, &wrong, torch_device(), MEMORY_LIMIT).is_err());
}
