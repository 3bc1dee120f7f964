//! The engine against a plain loop over captions, on the same embeddings in the same run.
//!
//! The baseline follows the authors' order of work on libtorch tensors (`laps_torch::baseline::PerCaption`): a shard of 256
//! images, one caption after another. The time of a caption does not depend on the number of captions, so the baseline is
//! timed on `BASELINE_CAPTIONS` of the 256 captions of a shard. The engine is timed on all of them, including the
//! preparation of the images. Both use all CPU cores. Their results are compared before anything is timed.
#![allow(clippy::expect_used, reason = "a benchmark without its inputs must fail")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode, Throughput};
use laps_align::similarity::{AlignmentConfig, CaptionMatrix, Engine, EngineOptions};
use laps_bench::alignment::{RandomImages, captions, peak_gflops, product_flops, weights};
use laps_model::encoder::Device;
use laps_torch::{TorchDevice, baseline::PerCaption};

/// Images and captions of the authors' shards.
const SHARD: usize = 256;

/// Captions of a shard that the baseline is timed on.
const BASELINE_CAPTIONS: usize = 4;

/// f32 sums of 512 terms in another order.
const TOLERANCE: f32 = 2e-6;

/// Pairs whose selection may differ: two patches at its boundary have nearly equal scores.
const BOUNDARY_PAIRS: usize = 2;

const MODELS: [(&str, AlignmentConfig); 2] = [
    ("vit_224", AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width: 512 }),
    ("swin_224", AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 512 }),
];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut report = String::new();
    for (name, config) in MODELS {
        report += &compare(&mut criterion, name, config);
    }
    criterion.final_summary();
    print!("\n{report}");
}

fn compare(criterion: &mut Criterion, name: &str, config: AlignmentConfig) -> String {
    let seed = 7;
    let weights = weights(seed, &config).expect("weights");
    let images = RandomImages { seed, images: SHARD, config }.to_array().expect("images");
    let captions = captions(seed, SHARD, config.width).expect("captions");
    let matrix = CaptionMatrix::from_arrays(&captions, config.width).expect("captions");
    let device = TorchDevice::open(Device::Cpu).expect("CPU");
    let baseline = PerCaption::new(config, &weights, device, &images, 0..SHARD).expect("baseline");
    let some = &captions[..BASELINE_CAPTIONS];

    let engine = Engine::new(config, &weights, EngineOptions::default()).expect("engine");
    let mut report = check(&baseline, &engine, &images, some, name);

    let mut group = criterion.benchmark_group(format!("alignment/{name}"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_secs(1));
    let mut time = |name: &str, captions: usize, work: &dyn Fn()| -> f64 {
        let pairs = SHARD * captions;
        let mut times = Vec::new();
        group.throughput(Throughput::Elements(pairs as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let began = Instant::now();
                (0..iterations).for_each(|_| work());
                let time = began.elapsed();
                times.push(time.as_secs_f64() * 1e6 / (iterations as usize * pairs) as f64);
                time
            });
        });
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let slow = time("per_caption_loop", BASELINE_CAPTIONS, &|| {
        black_box(baseline.similarities(some).expect("baseline"));
    });
    let fast = time("engine", SHARD, &|| {
        black_box(engine.similarities(&images, &matrix).expect("engine"));
    });
    group.finish();

    let threads = laps_bench::machine::processors();
    let gflops = product_flops(&config, SHARD, matrix.words()) / (fast * (SHARD * SHARD) as f64 * 1e3);
    let peak = peak_gflops(threads);
    report += &format!(
        "{name}: loop {slow:.1} us a pair, engine ({}, {threads} threads) {fast:.2} us a pair: {:.1} times as fast; \
         words by tokens at {gflops:.0} of {peak:.0} GFLOP/s, {:.0} % of the peak\n",
        engine.instruction_set(),
        slow / fast,
        100.0 * gflops / peak,
    );
    report
}

/// Checks that both compute the same similarities.
fn check(
    baseline: &PerCaption,
    engine: &Engine,
    images: &laps_model::array::Array,
    captions: &[laps_model::array::Array],
    name: &str,
) -> String {
    let expected = baseline.similarities(captions).expect("baseline");
    let matrix = CaptionMatrix::from_arrays(captions, engine.config().width).expect("captions");
    let found = engine.similarities(images, &matrix).expect("engine");
    let mut differences: Vec<f32> = (0..SHARD * captions.len())
        .map(|pair| {
            let [image, caption] = [pair / captions.len(), pair % captions.len()];
            (found.values()[pair] - expected.values()[caption * SHARD + image]).abs()
        })
        .collect();
    differences.sort_by(f32::total_cmp);
    let beyond = differences.iter().filter(|&&difference| difference.is_nan() || difference > TOLERANCE).count();
    assert!(beyond <= BOUNDARY_PAIRS, "{name}: {beyond} pairs differ: {:?}", differences.last());
    let largest = differences[differences.len() - 1 - beyond];
    format!("{name}: {} pairs agree within {largest:.1e}, {beyond} at the selection's boundary\n", differences.len())
}
