//! The engine of the ablations against their definition in f64, and invariance to threads and tiles.

use std::ops::ControlFlow;

use laps_model::{array::Array, heads::Ablation, params::Parameter};

use super::{
    definition::ReferenceImage,
    samples::{SWIN, SampleGenerator, VIT},
};
use crate::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, EngineOptions, HeadEngine, PairCounts, Plan, SimilarityEngine,
    Tile, simd::SimdLevel,
};

/// As for the other heads: dropping the class token changes similarities by 1e-3 or more, correct f32 code by 1e-6.
const TOLERANCE: f64 = 1e-5;

/// Two scores that differ by less may be ordered differently in f32.
const BOUNDARY: f64 = 3e-7;

fn engine(
    ablation: Ablation,
    config: AlignmentConfig,
    weights: &AggregationWeights,
    threads: usize,
    level: SimdLevel,
) -> HeadEngine {
    let read = |parameter: &Parameter| Ok(weights.parameter(&parameter.name).unwrap().clone());
    let options = EngineOptions { threads, ..EngineOptions::default() };
    HeadEngine::of_ablation(ablation, config, read, options, level).unwrap()
}

fn run(engine: &HeadEngine, plan: &Plan, images: &Array, captions: &CaptionMatrix) -> (Vec<f32>, PairCounts) {
    let mut found = vec![f32::NAN; images.dims()[0] * captions.len()];
    let mut sink = |tile: &Tile, values: &[f32]| {
        tile.copy_to(values, captions.len(), &mut found);
        Ok(ControlFlow::Continue(()))
    };
    let counts = engine.run(images, captions, plan, &mut sink).unwrap().counts;
    (found, counts)
}

/// Compares every ablation with the definition on every instruction set, for pairs away from the boundary of the selection.
/// Returns the number of tokens that were computed as vectors, by ablation.
fn compare(
    config: AlignmentConfig,
    weights: &AggregationWeights,
    images: &Array,
    captions: &[Array],
) -> Vec<(Ablation, u64)> {
    let matrix = CaptionMatrix::from_arrays(captions, config.width).unwrap();
    let references: Vec<ReferenceImage> = images
        .values()
        .chunks_exact(config.tokens() * config.width)
        .map(|tokens| ReferenceImage::new(&config, weights, tokens))
        .collect();
    let mut as_vectors = Vec::new();
    for ablation in Ablation::ALL {
        let expected: Vec<(f64, f64)> = references
            .iter()
            .flat_map(|image| captions.iter().map(|words| image.ablated(&config, Some(ablation), words.values())))
            .collect();
        let mut counts = PairCounts::default();
        for level in SimdLevel::available() {
            let engine = engine(ablation, config, weights, 1, level);
            let plan = engine.plan(images.dims()[0], &matrix).unwrap();
            let (found, of_level) = run(&engine, &plan, images, &matrix);
            counts = of_level;
            let mut skipped = 0;
            for (index, (&found, &(expected, gap))) in found.iter().zip(&expected).enumerate() {
                if gap < BOUNDARY && ablation != Ablation::WithoutPatchSelection {
                    skipped += 1;
                    continue;
                }
                let difference = (f64::from(found) - expected).abs();
                let case = format!("{ablation:?} {} pair {index}", level.name());
                assert!(difference < TOLERANCE, "{case}: {found} for {expected}, gap {gap:e}");
            }
            assert!(skipped * 10 <= expected.len(), "{skipped} of {} pairs at the boundary", expected.len());
        }
        as_vectors.push((ablation, counts.as_vectors));
    }
    as_vectors
}

#[test]
fn ablations_match_the_definition_in_f64() {
    for config in [VIT, SWIN] {
        let mut random = SampleGenerator(0x9e37_79b9_7f4a_7c15);
        let weights = random.weights(&config, 1.0);
        let images = random.embeddings([2, config.tokens(), config.width], 0.4);
        let captions = random.captions(&[9, 1, 22, 14], config.width, 0.4);
        for (ablation, as_vectors) in compare(config, &weights, &images, &captions) {
            assert_eq!(as_vectors, 0, "{ablation:?}");
        }
    }
}

/// All patches kept, one patch kept, more groups than lanes, fewer patches than lanes, and more patches than a word has bits.
#[test]
fn ablations_match_the_definition_at_unusual_sizes() {
    for config in [
        AlignmentConfig { patches: 49, has_class_token: true, kept: 49, groups: 23, width: 96 },
        AlignmentConfig { patches: 49, has_class_token: false, kept: 1, groups: 3, width: 20 },
        AlignmentConfig { patches: 5, has_class_token: false, kept: 3, groups: 9, width: 33 },
        AlignmentConfig { patches: 64, has_class_token: true, kept: 63, groups: 16, width: 40 },
        AlignmentConfig { patches: 144, has_class_token: false, kept: 116, groups: 69, width: 24 },
    ] {
        let mut random = SampleGenerator(11);
        let weights = random.weights(&config, 1.0);
        let images = random.embeddings([3, config.tokens(), config.width], 0.3);
        let captions = random.captions(&[3, 14, 1, 36], config.width, 0.3);
        compare(config, &weights, &images, &captions);
    }
}

/// Logits that differ by 60: the squared factors of a group underflow if the best patch is dropped.
#[test]
fn ablations_with_underflowing_groups_match_the_definition() {
    let mut random = SampleGenerator(0x9e37_79b9_7f4a_7c15);
    let weights = random.weights(&SWIN, 60.0);
    let images = random.embeddings([4, SWIN.tokens(), SWIN.width], 0.0);
    let captions = random.captions(&[3, 14, 9, 22, 1, 12], SWIN.width, 0.0);
    let as_vectors = compare(SWIN, &weights, &images, &captions);
    assert!(as_vectors.contains(&(Ablation::WithoutPatchCalibration, 0)), "{as_vectors:?}");
    let of_scan = as_vectors.iter().find(|(ablation, _)| *ablation == Ablation::ScanAlignment).unwrap();
    assert!(of_scan.1 > 0, "{as_vectors:?}");
}

/// Patches in nearly opposite pairs, all kept: groups and attended vectors are small differences of large sums.
#[test]
fn ablations_with_cancelling_groups_match_the_definition() {
    let config = AlignmentConfig { kept: SWIN.patches, ..SWIN };
    let mut random = SampleGenerator(7);
    let weights = random.weights(&config, 0.01);
    let images = random.opposite_pairs(&config);
    let captions = random.captions(&[3, 14, 9, 22], config.width, 0.0);
    let as_vectors = compare(config, &weights, &images, &captions);
    let of_scan = as_vectors.iter().find(|(ablation, _)| *ablation == Ablation::ScanAlignment).unwrap();
    assert!(of_scan.1 > 0, "{as_vectors:?}");
}

#[test]
fn threads_and_tiles_do_not_change_the_bits_of_an_ablation() {
    const LENGTHS: [usize; 12] = [3, 14, 9, 22, 1, 12, 36, 17, 90, 8, 9, 130];
    for config in [VIT, SWIN].map(|config| AlignmentConfig { width: 64, ..config }) {
        let mut random = SampleGenerator(5);
        let weights = random.weights(&config, 12.0);
        let images = random.embeddings([5, config.tokens(), config.width], 0.4);
        let captions = random.captions(&LENGTHS, config.width, 0.4);
        let captions = CaptionMatrix::from_arrays(&captions, config.width).unwrap();
        let levels = SimdLevel::available();
        for (ablation, &level) in Ablation::ALL.iter().flat_map(|&one| levels.iter().map(move |level| (one, level))) {
            let whole = engine(ablation, config, &weights, 1, level).similarities(&images, &captions).unwrap();
            for threads in [1, 3] {
                let engine = engine(ablation, config, &weights, threads, level);
                let plan = engine.plan(5, &captions).unwrap();
                for (tile_images, tile_captions, block_words) in [(1, 1, 130), (2, 5, 131), (5, 12, 1000)] {
                    let plan = Plan { tile_images, tile_captions, block_words, ..plan };
                    let (found, counts) = run(&engine, &plan, &images, &captions);
                    assert_eq!(found, whole.values(), "{ablation:?} {} {plan:?}", level.name());
                    assert_eq!(counts.pairs, 60, "{ablation:?}");
                }
            }
        }
    }
}

/// Zero vectors must not divide by zero.
#[test]
fn zero_embeddings_have_similarity_zero_in_every_ablation() {
    for config in [VIT, SWIN].map(|config| AlignmentConfig { width: 32, ..config }) {
        let mut random = SampleGenerator(3);
        let weights = random.weights(&config, 1.0);
        let zeros = Array::new(&[1, config.tokens(), 32], vec![0.0; config.tokens() * 32]).unwrap();
        let images = random.embeddings([1, config.tokens(), 32], 0.4);
        let words = CaptionMatrix::from_arrays(&random.captions(&[4], 32, 0.4), 32).unwrap();
        let zero_words = CaptionMatrix::from_arrays(&[Array::new(&[4, 32], vec![0.0; 128]).unwrap()], 32).unwrap();
        for ablation in Ablation::ALL {
            let engine = engine(ablation, config, &weights, 1, SimdLevel::detect());
            for (images, words) in [(&zeros, &words), (&images, &zero_words)] {
                assert_eq!(engine.similarities(images, words).unwrap().values(), [0.0], "{ablation:?}");
            }
        }
    }
}
