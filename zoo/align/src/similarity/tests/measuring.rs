//! Tests of stage times and of the packed product.

use std::time::{Duration, Instant};

use super::samples::{SWIN, SampleGenerator, VIT};
use crate::similarity::{
    AlignmentConfig, CaptionMatrix, Engine, EngineOptions, PackedRows, PairStage, simd::SimdLevel, stages::Stopwatch,
    worker::Worker,
};

const LENGTHS: [usize; 9] = [3, 14, 9, 22, 1, 12, 36, 17, 90];

#[test]
fn stage_times_do_not_change_the_result() {
    for config in [VIT, SWIN] {
        let config = AlignmentConfig { width: 64, ..config };
        let mut random = SampleGenerator(5);
        let weights = random.weights(&config, 12.0);
        let images = random.embeddings([4, config.tokens(), config.width], 0.4);
        let captions = CaptionMatrix::from_arrays(&random.captions(&LENGTHS, config.width, 0.4), config.width).unwrap();
        for level in SimdLevel::available() {
            let engine = Engine::with_level(config, &weights, EngineOptions::default(), level).unwrap();
            let images = engine.prepare(&images, 0..4).unwrap();
            let expected = engine.compare(&images, &captions).unwrap();
            let mut found = vec![f32::NAN; expected.values().len()];
            let mut worker = Worker::new(&config, None, level, 120);
            let began = Instant::now();
            let mut stopwatch = Stopwatch::start();
            worker.compute(&images, &captions, 0..LENGTHS.len(), &mut found, &mut stopwatch);
            let elapsed = began.elapsed();
            assert_eq!(found, expected.values(), "{}", level.name());
            let times = stopwatch.times();
            assert_eq!(times.iter().map(|&(stage, _)| stage).collect::<Vec<_>>(), PairStage::ALL);
            assert!(times.iter().all(|&(_, time)| time > Duration::ZERO), "{times:?}");
            assert!(times.iter().map(|&(_, time)| time).sum::<Duration>() <= elapsed, "{times:?} in {elapsed:?}");
            let times = engine.stages(&images, &captions, 2..5).unwrap();
            assert_eq!((times.pairs, times.stages.len()), (12, PairStage::ALL.len()));
            assert!(engine.stages(&images, &captions, 2..10).is_err());
        }
    }
}

/// More rows than a block of words, and columns that end within a panel.
#[test]
fn packed_product_matches_sums_in_f64() {
    let [rows, columns, width] = [131, 45, 300];
    let mut random = SampleGenerator(6);
    let left = random.embeddings([1, rows, width], 1.0);
    let right = random.embeddings([1, columns, width], 1.0);
    for level in SimdLevel::available() {
        let packed = PackedRows::new(right.values(), width, level).unwrap();
        let stride = packed.columns();
        let [mut scratch, mut output] = [vec![0.0; rows * width], vec![f32::NAN; rows * stride]];
        packed.multiply(left.values(), &mut scratch, &mut output).unwrap();
        for (row, found) in left.values().chunks_exact(width).zip(output.chunks_exact(stride)) {
            for (column, &found) in right.values().chunks_exact(width).zip(found) {
                let terms = row.iter().zip(column).map(|(&left, &right)| f64::from(left) * f64::from(right));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                // Error bound of a chain of f32 sums: its length times half a unit in the last place.
                let bound = width as f64 * f64::from(f32::EPSILON) / 2.0 * size;
                assert!((f64::from(found) - sum).abs() <= bound, "{}: {found} {sum}", level.name());
            }
            assert!(found[columns..].iter().all(|&padding| padding == 0.0));
        }
        assert!(packed.multiply(left.values(), &mut scratch, &mut output[1..]).is_err());
        assert!(PackedRows::new(&right.values()[1..], width, level).is_err());
    }
}
