//! A training step of the alignment against the authors' order of work: forward pass, hinge loss, and backward pass to the
//! image embeddings, the word embeddings and the weights of the aggregation.
//!
//! The baseline compares one caption after another with all images of the batch on libtorch tensors, records everything and
//! runs one backward pass (`laps_torch::baseline::AlignmentMethod::PerCaption`). Both start from the same embeddings:
//! standard normal, with caption lengths of Flickr30K. Their losses and gradients are compared before anything is timed. A
//! baseline step takes long, so its time is the median of `BASELINE_STEPS` steps; criterion times ours.
//!
//! Each peak of the resident memory is measured in its own process, relative to the memory with the embeddings and after a
//! step of two pairs, which loads the libraries and starts their threads.
//!
//! Both use `RAYON_NUM_THREADS` threads, by default all CPU cores:
//!
//!     RAYON_NUM_THREADS=1 cargo bench -p laps-torch --bench training -- vit_224
//!
//! `LAPS_ZOO_BENCH_DEVICE=cuda:0` runs on a GPU, whose memory is not measured.
#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark without its inputs must fail")]

mod support;

use std::{
    env,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode};
use laps_align::similarity::AlignmentConfig;
use laps_bench::alignment::{RandomImages, Watermark, captions};
use laps_hub::registry;
use laps_model::{array::Array, encoder::Device, models::config::ModelConfig};
use laps_torch::{
    TorchDevice,
    baseline::{AlignmentMethod, AlignmentStep},
    set_threads,
    train::{HingeLoss, Negatives},
};

/// Pairs of the comparison, and of the large batch, which must fit into 8 GB.
const BATCH: usize = 64;
const LARGE: usize = 256;
const SEED: u64 = 7;
const BASELINE_STEPS: usize = 3;
/// f32 sums in another order, relative to the largest gradient of a tensor.
const TOLERANCE: f32 = 1e-5;
/// Fraction of the values of a gradient that may differ more: a near tie at the boundary of the selection in one of the
/// 4,096 pairs changes the gradients of the words of a caption and of patches of an image.
const BOUNDARY: f64 = 2e-2;

const MODELS: [(&str, &str); 2] = [("vit_224", "f30k_vit"), ("swin_224", "f30k_swin")];
const NEGATIVES: [(&str, Negatives); 2] = [("all", Negatives::All), ("hardest", Negatives::Hardest)];
const METHODS: [(&str, AlignmentMethod); 2] =
    [("per_caption", AlignmentMethod::PerCaption), ("vectorised", AlignmentMethod::Vectorised)];

fn main() {
    if let Some(figure) = support::figure() {
        println!("{}", memory(&figure));
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut report = String::new();
    let threads = rayon::current_num_threads();
    set_threads(threads);
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (name, entry) in MODELS {
        let name = format!("{name}, {}, threads {threads}", device());
        if name.contains(&filter) {
            report += &compare(&mut criterion, &name, entry);
        }
    }
    criterion.final_summary();
    print!("\n{report}");
}

fn model(entry: &str) -> ModelConfig {
    registry::find(entry).expect("entry").model
}

fn inputs(model: &ModelConfig, batch: usize) -> (Array, Vec<Array>) {
    let config = AlignmentConfig::of(model);
    let images = RandomImages { seed: SEED, images: batch, config }.to_array().expect("images");
    (images, captions(SEED, batch, config.width).expect("captions"))
}

fn step(entry: &str, batch: usize) -> AlignmentStep {
    let model = model(entry);
    let (images, captions) = inputs(&model, batch);
    AlignmentStep::new(&model, &images, &captions, SEED, device()).expect("step")
}

/// The device of both.
fn device() -> TorchDevice {
    let device = env::var("LAPS_ZOO_BENCH_DEVICE").map_or(Device::Cpu, |device| device.parse().expect("a device"));
    TorchDevice::open(device).expect("an available device")
}

fn hinge(negatives: Negatives) -> HingeLoss {
    HingeLoss { margin: 0.2, negatives, weight: 1.0 }
}

fn compare(criterion: &mut Criterion, name: &str, entry: &str) -> String {
    let step = step(entry, BATCH);
    let mut report = String::new();
    let mut group = criterion.benchmark_group(format!("training/{name}"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(500));
    for (kind, negatives) in NEGATIVES {
        let hinge = hinge(negatives);
        let run = |method| step.forward_backward(method, &hinge).expect("step");
        report += &check(&step, &hinge, &format!("{name}, {kind}"));
        let mut slow: Vec<f64> = (0..BASELINE_STEPS)
            .map(|_| {
                let began = Instant::now();
                black_box(run(AlignmentMethod::PerCaption));
                began.elapsed().as_secs_f64()
            })
            .collect();
        slow.sort_by(f64::total_cmp);
        let slow = slow[BASELINE_STEPS / 2];
        let mut times = Vec::new();
        group.bench_function(format!("vectorised/{kind}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let began = Instant::now();
                (0..iterations).for_each(|_| _ = black_box(run(AlignmentMethod::Vectorised)));
                let time = began.elapsed();
                times.push(time.as_secs_f64() / iterations as f64);
                time
            });
        });
        // The timed steps have added to the gradients.
        step.take_gradients().expect("gradients");
        times.sort_by(f64::total_cmp);
        let fast = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
        report +=
            &format!("{name}, {kind}: loop {slow:.2} s a step, ours {fast:.3} s: {:.1} times as fast\n", slow / fast);
        if device().is_cuda() {
            continue;
        }
        let [loop_peak, peak, large] = [(METHODS[0].0, BATCH), (METHODS[1].0, BATCH), (METHODS[1].0, LARGE)]
            .map(|(method, batch)| support::peak(&format!("{entry}:{method}:{kind}:{batch}")));
        report += &format!(
            "{name}, {kind}: loop {loop_peak:.0} MiB above the inputs, ours {peak:.0} MiB: a {:.1}th; batch {LARGE}: \
             {large:.0} MiB\n",
            loop_peak / peak
        );
    }
    group.finish();
    report
}

/// Checks that both compute the same loss and gradients.
fn check(step: &AlignmentStep, hinge: &HingeLoss, name: &str) -> String {
    let [expected, found] = METHODS.map(|(_, method)| {
        let loss = step.forward_backward(method, hinge).expect("step");
        (loss, step.take_gradients().expect("gradients"))
    });
    let drift = (found.0 / expected.0 - 1.0).abs();
    assert!(drift <= f64::from(TOLERANCE), "{name}: losses {} and {}", expected.0, found.0);
    let mut report = format!("{name}: losses agree within {drift:.1e}");
    let largest = |array: &Array| array.values().iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let of_weights = expected.1[2..].iter().map(|(_, array)| largest(array)).fold(0f32, f32::max);
    for ((tensor, expected), (_, found)) in expected.1.iter().zip(&found.1) {
        // The bias of the group logits shifts all inputs of a softmax over patches, so its gradient is rounding noise. The
        // gradient of the scale of the logits is one sum over all pairs, whose terms cancel.
        let sums = tensor.ends_with("weight.3.bias") || tensor.ends_with("scale");
        let scale = if sums { of_weights } else { largest(expected) };
        let drifts = expected.values().iter().zip(found.values()).map(|(a, b)| (a - b).abs() / scale);
        let drifts: Vec<f32> = drifts.collect();
        let beyond = drifts.iter().filter(|&&drift| drift.is_nan() || drift > TOLERANCE).count() as f64;
        let all = drifts.len() as f64;
        assert!(beyond <= BOUNDARY * all, "{name}: {beyond} of {all} values of the gradient of {tensor} differ");
        let most = drifts.iter().copied().fold(0f32, f32::max);
        let short = tensor.trim_start_matches("cross_net.aggr_net.");
        report += &format!("; {short} {most:.1e} ({:.3} % beyond)", 100.0 * beyond / all);
    }
    report + "\n"
}

/// MiB that a step takes above its inputs.
fn memory(figure: &str) -> f64 {
    let parts: Vec<&str> = figure.split(':').collect();
    let [entry, method, kind, batch] = parts[..] else { panic!("`{figure}` cannot be measured") };
    set_threads(rayon::current_num_threads());
    let method = METHODS.iter().find(|(name, _)| *name == method).expect("a method").1;
    let hinge = hinge(NEGATIVES.iter().find(|(name, _)| *name == kind).expect("negatives").1);
    step(entry, 2).forward_backward(method, &hinge).expect("step");
    let step = step(entry, batch.parse().expect("a number"));
    let watermark = Watermark::reset();
    black_box(step.forward_backward(method, &hinge).expect("step"));
    support::mebibytes(watermark.above())
}
