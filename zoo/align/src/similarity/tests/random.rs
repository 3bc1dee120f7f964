//! The engine against the definition in f64, on random embeddings.

use super::{
    definition::ReferenceImage,
    samples::{SWIN, SampleGenerator, VIT, score},
};
use crate::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, PairCounts, Tile, simd::SimdLevel,
};
use laps_model::array::Array;

const LENGTHS: [usize; 8] = [3, 14, 9, 22, 1, 12, 36, 17];

/// Two scores that differ by less may be ordered differently in f32.
const BOUNDARY: f64 = 3e-7;

/// Compares the engine with the definition on every instruction set. Pairs away from the boundary of the selection must
/// agree within 2e-6: cosines of width 512 in f32 have rounding errors of the order of 1e-7, and norms are computed from
/// products of patches.
fn compare(config: AlignmentConfig, weights: &AggregationWeights, images: &Array, captions: &[Array]) -> PairCounts {
    let matrix = CaptionMatrix::from_arrays(captions, config.width).unwrap();
    let references: Vec<ReferenceImage> = images
        .values()
        .chunks_exact(config.tokens() * config.width)
        .map(|tokens| ReferenceImage::new(&config, weights, tokens))
        .collect();
    let expected: Vec<(f64, f64)> = references
        .iter()
        .flat_map(|image| captions.iter().map(|caption| image.similarity(&config, caption.values())))
        .collect();
    let mut counts = PairCounts::default();
    for level in SimdLevel::available() {
        let engine = Engine::with_level(config, weights, EngineOptions::default(), level).unwrap();
        let plan = engine.plan(images.dims()[0], &matrix).unwrap();
        let mut found = vec![0.0; expected.len()];
        let mut sink = |tile: &Tile, values: &[f32]| {
            tile.copy_to(values, captions.len(), &mut found);
            Ok(std::ops::ControlFlow::Continue(()))
        };
        counts = engine.run(images, &matrix, &plan, &mut sink).unwrap().counts;
        let mut largest = 0.0f64;
        let mut skipped = 0;
        for (index, (&found, &(expected, gap))) in found.iter().zip(&expected).enumerate() {
            let difference = (f64::from(found) - expected).abs();
            if gap < BOUNDARY {
                skipped += 1;
                continue;
            }
            largest = largest.max(difference);
            assert!(difference < 2e-6, "{} pair {index}: {found} for {expected}, gap {gap:e}", level.name());
        }
        println!("{} {config:?}: largest difference {largest:e}, {skipped} at the boundary, {counts:?}", level.name());
        assert!(skipped * 20 <= expected.len(), "{skipped} of {} pairs at the boundary", expected.len());
    }
    counts
}

fn compare_published_geometries(shared: f32, scale: f32) -> [PairCounts; 2] {
    [VIT, SWIN].map(|config| {
        let mut random = SampleGenerator(0x9e37_79b9_7f4a_7c15);
        let weights = random.weights(&config, scale);
        let images = random.embeddings([4, config.tokens(), config.width], shared);
        let captions = random.captions(&LENGTHS, config.width, shared);
        compare(config, &weights, &images, &captions)
    })
}

#[test]
fn independent_patches_match_the_definition() {
    for counts in compare_published_geometries(0.0, 1.0) {
        assert_eq!(counts, PairCounts { pairs: 32, from_all_kept: 0, as_vectors: 0 });
    }
}

#[test]
fn patches_with_a_common_direction_match_the_definition() {
    for counts in compare_published_geometries(1.5, 1.0) {
        assert_eq!(counts, PairCounts { pairs: 32, from_all_kept: 0, as_vectors: 0 });
    }
}

/// If a caption drops the patch that dominates a group, the difference to the reference selection cancels.
#[test]
fn dominated_groups_are_computed_from_all_kept_patches() {
    for counts in compare_published_geometries(0.0, 12.0) {
        assert!(counts.from_all_kept > 0, "{counts:?}");
    }
}

/// Logits that differ by 60: if the best patch is dropped, the squared factors of a group underflow in f32.
#[test]
fn underflowing_groups_are_computed_as_vectors() {
    for counts in compare_published_geometries(0.0, 60.0) {
        assert!(counts.as_vectors > 0, "{counts:?}");
    }
}

/// Patches in nearly opposite pairs, all kept: every group is a small difference of large sums.
#[test]
fn cancelling_groups_are_computed_as_vectors() {
    for config in [VIT, SWIN].map(|config| AlignmentConfig { kept: config.patches, ..config }) {
        let mut random = SampleGenerator(7);
        let weights = random.weights(&config, 0.01);
        let images = random.opposite_pairs(&config);
        let captions = random.captions(&LENGTHS, config.width, 0.0);
        let counts = compare(config, &weights, &images, &captions);
        assert!(counts.as_vectors > 0, "{counts:?}");
    }
}

/// All patches kept, one patch kept, more groups than lanes, and fewer patches than lanes.
#[test]
fn unusual_sizes_match_the_definition() {
    for config in [
        AlignmentConfig { patches: 49, has_class_token: true, kept: 49, groups: 23, width: 96 },
        AlignmentConfig { patches: 49, has_class_token: false, kept: 1, groups: 3, width: 20 },
        AlignmentConfig { patches: 1, has_class_token: true, kept: 1, groups: 1, width: 5 },
        AlignmentConfig { patches: 5, has_class_token: false, kept: 3, groups: 9, width: 33 },
        AlignmentConfig { patches: 64, has_class_token: true, kept: 63, groups: 16, width: 300 },
        AlignmentConfig { patches: 576, has_class_token: true, kept: 288, groups: 115, width: 64 },
        AlignmentConfig { patches: 144, has_class_token: false, kept: 116, groups: 69, width: 48 },
    ] {
        let mut random = SampleGenerator(11);
        let weights = random.weights(&config, 1.0);
        let images = random.embeddings([5, config.tokens(), config.width], 0.3);
        let captions = random.captions(&LENGTHS, config.width, 0.3);
        compare(config, &weights, &images, &captions);
    }
}

/// Equal patches have equal scores, so the first ones are kept. All merged tokens are equal too.
#[test]
fn equal_patches_match_the_definition() {
    let config = AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 32 };
    let mut random = SampleGenerator(3);
    let weights = random.weights(&config, 1.0);
    let patch = random.normal(&[32], 1.0);
    let image = Array::new(&[49, 32], patch.values().repeat(49)).unwrap();
    let caption = random.normal(&[6, 32], 1.0);
    let expected = ReferenceImage::new(&config, &weights, image.values()).similarity(&config, caption.values()).0;
    let engine = Engine::new(config, &weights, EngineOptions::default()).unwrap();
    assert!((f64::from(score(&engine, &image, &caption).unwrap()) - expected).abs() < 2e-6);
}
