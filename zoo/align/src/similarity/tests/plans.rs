//! Invariance to threads and tiles, memory limits, and invalid input.

use std::ops::ControlFlow;

use super::samples::{SWIN, SampleGenerator, VIT, score};
use crate::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, Plan, Tile, TileSink, simd::SimdLevel,
};
use laps_model::array::Array;

const LENGTHS: [usize; 24] = [3, 14, 9, 22, 1, 12, 36, 17, 90, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 5, 6, 7, 130];

struct PlanSample {
    config: AlignmentConfig,
    weights: AggregationWeights,
    images: Array,
    captions: Vec<Array>,
    matrix: CaptionMatrix,
}

fn sample(config: AlignmentConfig) -> PlanSample {
    let mut random = SampleGenerator(5);
    let weights = random.weights(&config, 12.0);
    let images = random.embeddings([9, config.tokens(), config.width], 0.4);
    let captions = random.captions(&LENGTHS, config.width, 0.4);
    let matrix = CaptionMatrix::from_arrays(&captions, config.width).unwrap();
    PlanSample { config, weights, images, captions, matrix }
}

fn small(config: AlignmentConfig) -> AlignmentConfig {
    AlignmentConfig { width: 64, ..config }
}

impl PlanSample {
    fn engine(&self, threads: usize, level: SimdLevel) -> Engine {
        let options = EngineOptions { threads, ..EngineOptions::default() };
        Engine::with_level(self.config, &self.weights, options, level).unwrap()
    }

    fn run(&self, engine: &Engine, plan: &Plan) -> Vec<f32> {
        let mut found = vec![f32::NAN; self.images.dims()[0] * self.matrix.len()];
        let mut sink = |tile: &Tile, values: &[f32]| {
            tile.copy_to(values, self.matrix.len(), &mut found);
            Ok(ControlFlow::Continue(()))
        };
        assert!(engine.run(&self.images, &self.matrix, plan, &mut sink).unwrap().finished);
        found
    }
}

#[test]
fn threads_and_tiles_do_not_change_the_bits() {
    for config in [VIT, SWIN] {
        let sample = sample(small(config));
        for level in SimdLevel::available() {
            let expected = sample.engine(1, level).similarities(&sample.images, &sample.matrix).unwrap();
            for threads in [1, 2, 4] {
                let engine = sample.engine(threads, level);
                let plan = engine.plan(9, &sample.matrix).unwrap();
                for (tile_images, tile_captions, block_words) in [(1, 1, 130), (2, 5, 131), (4, 24, 200), (9, 7, 1000)]
                {
                    let plan = Plan { tile_images, tile_captions, block_words, ..plan };
                    assert_eq!(sample.run(&engine, &plan), expected.values(), "{plan:?}");
                }
                assert_eq!(sample.run(&engine, &plan), expected.values(), "{plan:?}");
            }
        }
    }
}

#[test]
fn single_pair_has_the_same_bits_as_in_a_matrix() {
    for config in [VIT, SWIN] {
        let sample = sample(small(config));
        let engine = sample.engine(2, SimdLevel::detect());
        let matrix = engine.similarities(&sample.images, &sample.matrix).unwrap();
        let size = sample.config.tokens() * 64;
        for image in [0, 3, 8] {
            let values = sample.images.values()[image * size..][..size].to_vec();
            let tokens = Array::new(&[sample.config.tokens(), 64], values).unwrap();
            for (number, caption) in sample.captions.iter().enumerate() {
                let alone = score(&engine, &tokens, caption).unwrap();
                assert_eq!(alone, matrix.values()[image * LENGTHS.len() + number]);
            }
        }
    }
}

/// Stops the run after a number of tiles, and wants only missing tiles.
struct InterruptedSink<'a> {
    matrix: &'a mut [f32],
    columns: usize,
    done: Vec<usize>,
    stop_after: usize,
}

impl TileSink for InterruptedSink<'_> {
    fn wants(&mut self, tile: &Tile) -> bool {
        !self.done.contains(&tile.index)
    }

    fn accept(&mut self, tile: &Tile, similarities: &[f32]) -> crate::Result<ControlFlow<()>> {
        assert!(self.wants(tile), "tile {} twice", tile.index);
        tile.copy_to(similarities, self.columns, self.matrix);
        self.done.push(tile.index);
        Ok(if self.done.len() == self.stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

#[test]
fn stopped_run_resumes_with_the_missing_tiles() {
    let sample = sample(small(SWIN));
    let engine = sample.engine(1, SimdLevel::detect());
    let expected = engine.similarities(&sample.images, &sample.matrix).unwrap();
    let plan = Plan { tile_images: 2, tile_captions: 10, ..engine.plan(9, &sample.matrix).unwrap() };
    assert_eq!(plan.len(), 15);
    let mut matrix = vec![f32::NAN; expected.values().len()];
    let mut sink = InterruptedSink { matrix: &mut matrix, columns: LENGTHS.len(), done: Vec::new(), stop_after: 3 };
    assert!(!engine.run(&sample.images, &sample.matrix, &plan, &mut sink).unwrap().finished);
    assert_eq!(sink.done, [0, 1, 2]);
    sink.stop_after = usize::MAX;
    assert!(engine.run(&sample.images, &sample.matrix, &plan, &mut sink).unwrap().finished);
    assert_eq!(sink.done.len(), 15);
    assert_eq!(matrix, expected.values());
}

#[test]
fn plans_stay_within_the_memory_limit() {
    let mut random = SampleGenerator(1);
    for config in [VIT, SWIN] {
        let weights = random.weights(&config, 1.0);
        let mut matrix = CaptionMatrix::new(config.width);
        for length in LENGTHS {
            matrix.push(&[length, config.width], &vec![1.0; length * config.width]).unwrap();
        }
        let mut last = usize::MAX;
        for memory_limit in [1 << 30, 20 << 20, 10 << 20, 6 << 20] {
            let engine = Engine::new(config, &weights, EngineOptions { threads: 2, memory_limit }).unwrap();
            let plan = engine.plan(5000, &matrix).unwrap();
            assert!(plan.bytes <= memory_limit, "{plan:?}");
            assert!(plan.tile_images <= last && plan.block_words >= 130);
            last = plan.tile_images;
        }
        let engine = Engine::new(config, &weights, EngineOptions { threads: 2, memory_limit: 1000 }).unwrap();
        let message = engine.plan(5000, &matrix).unwrap_err().to_string();
        assert!(message.contains("memory limit of at least"), "{message}");
    }
}

#[test]
fn tiles_cover_the_matrix_once() {
    let plan = Plan { images: 10, captions: 7, tile_images: 4, tile_captions: 3, block_words: 9, threads: 1, bytes: 0 };
    let mut seen = [0; 70];
    for index in 0..plan.len() {
        let tile = plan.tile(index);
        assert_eq!(tile.index, index);
        for image in tile.images {
            tile.captions.clone().for_each(|caption| seen[image * 7 + caption] += 1);
        }
    }
    assert_eq!(seen, [1; 70]);
}

#[test]
fn invalid_input_is_rejected() {
    let sample = sample(small(SWIN));
    let engine = sample.engine(1, SimdLevel::detect());
    let mut captions = CaptionMatrix::new(64);
    let mut rejected = |shape: &[usize], values: &[f32]| captions.push(shape, values).unwrap_err().to_string();
    assert!(rejected(&[0, 64], &[]).contains("words of caption 0 as (at least 1, 64)"));
    assert!(rejected(&[1, 63], &[0.0; 63]).contains("found: shape [1, 63]"));
    assert!(rejected(&[2, 64], &[0.0; 64]).contains("found: shape [2, 64]"));
    assert!(rejected(&[1, 64], &[f32::NAN; 64]).contains("finite embeddings"));
    assert!(rejected(&[1, 64], &[f32::INFINITY; 64]).contains("finite embeddings"));
    assert!(captions.is_empty());

    let image = Array::new(&[49, 64], vec![f32::NAN; 49 * 64]).unwrap();
    let caption = &sample.captions[0];
    assert!(score(&engine, &image, caption).unwrap_err().to_string().contains("a token of image 0"));
    let image = Array::new(&[48, 64], vec![0.0; 48 * 64]).unwrap();
    assert!(score(&engine, &image, caption).unwrap_err().to_string().contains("images of shape [49, 64]"));
    let images = Array::new(&[2, 49, 63], vec![0.0; 2 * 49 * 63]).unwrap();
    assert!(engine.similarities(&images, &sample.matrix).is_err());
    assert!(engine.similarities(&sample.images, &CaptionMatrix::new(63)).is_err());
    assert!(engine.prepare(&sample.images, 8..10).is_err());
    let plan = engine.plan(8, &sample.matrix).unwrap();
    let mut sink = |_: &Tile, _: &[f32]| Ok(ControlFlow::Continue(()));
    assert!(engine.run(&sample.images, &sample.matrix, &plan, &mut sink).is_err());

    let empty = engine.similarities(&sample.images, &CaptionMatrix::new(64)).unwrap();
    assert_eq!(empty.dims(), [9, 0]);
    let nothing = Array::new(&[0, 49, 64], Vec::new()).unwrap();
    assert_eq!(engine.similarities(&nothing, &sample.matrix).unwrap().dims(), [0, 24]);

    for config in [
        AlignmentConfig { kept: 0, ..SWIN },
        AlignmentConfig { kept: 50, ..SWIN },
        AlignmentConfig { groups: 0, ..SWIN },
        AlignmentConfig { width: 0, ..SWIN },
    ] {
        assert!(Engine::new(config, &sample.weights, EngineOptions::default()).is_err());
    }
    let message = Engine::new(SWIN, &sample.weights, EngineOptions::default()).unwrap_err().to_string();
    assert!(message.contains("`cross_net.aggr_net.weight.0.weight`"), "{message}");
}

/// Zero vectors must not divide by zero.
#[test]
fn zero_embeddings_have_similarity_zero() {
    for config in [small(VIT), small(SWIN)] {
        let sample = sample(config);
        let engine = sample.engine(1, SimdLevel::detect());
        let image = Array::new(&[config.tokens(), 64], vec![0.0; config.tokens() * 64]).unwrap();
        assert_eq!(score(&engine, &image, &sample.captions[1]).unwrap(), 0.0);
        let words = Array::new(&[4, 64], vec![0.0; 256]).unwrap();
        let tokens = sample.images.values()[..config.tokens() * 64].to_vec();
        let image = Array::new(&[config.tokens(), 64], tokens).unwrap();
        assert_eq!(score(&engine, &image, &words).unwrap(), 0.0);
    }
}
