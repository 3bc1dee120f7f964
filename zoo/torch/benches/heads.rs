//! The similarity engine of the heads besides LAPS's against the loop of the originals: one caption after another, with all
//! images of a shard in batched operations of libtorch. Heads without parameters are computed in the originals' order of work
//! (`laps_torch::baseline::HeadLoop`); `sgr` and the ablations by the definition of the head. The loop is timed without what
//! depends on the images alone, the engine with it. Both use all CPU cores, on the same embeddings, in the same run.
//!
//! `cargo bench -p laps-torch --bench heads` computes 1,000 x 1,000 pairs of both geometries, 1,000 x 100 for `sgr`. `-- HEAD`
//! measures one head, `-- 50` so many images and at most so many captions. The loop computes some of the captions; its time of
//! a pair does not depend on their number.
//!
//! `-- memory` prints the peak memory of every head instead, LAPS included: of the engine, the finished matrix included, and
//! of a training step from embeddings to their gradients at three batch sizes, with all negatives. Each peak is measured in
//! its own process, relative to the memory with the embeddings and after a run on two pairs, which loads the libraries and
//! starts their threads.

#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic, reason = "a benchmark without its inputs must fail")]

mod support;

use std::{hint::black_box, rc::Rc, time::Instant};

use laps_align::similarity::{
    AlignmentConfig, CaptionMatrix, Engine, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine, instruction_set,
};
use laps_bench::alignment::{RandomImages, Watermark, captions, peak_gflops, weights};
use laps_hub::registry;
use laps_model::{
    array::Array,
    encoder::Device,
    heads::{Ablation, ChanAggregation, D2sVseConfig, Head, HeadConfig, HeadSizes, Pooling},
    params::{ParamPath, Parameter},
    params_init::init_parameters,
    random::SplitMix64,
    tensor::DeviceTensor,
};
use laps_torch::{
    Torch, TorchDevice,
    baseline::{AlignmentMethod, AlignmentStep, HeadLoop, HeadStep, build_head},
    set_threads,
    train::{HingeLoss, Negatives},
};

const WIDTH: usize = 512;
/// Name, sizes and entry of each geometry.
const GEOMETRIES: [(&str, AlignmentConfig, &str); 2] = [
    (
        "ViT-224",
        AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width: WIDTH },
        "f30k_vit",
    ),
    (
        "Swin-224",
        AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: WIDTH },
        "f30k_swin",
    ),
];
/// Images, and captions of heads other than `sgr`.
const ITEMS: usize = 1000;
/// Captions of `sgr`, which takes several times as long.
const SGR_CAPTIONS: usize = 100;
/// Images of the loop by the definition of a head.
const SHARD: usize = 256;
/// Captions of a loop.
const LOOP_CAPTIONS: usize = 4;
/// Words of each caption; the median is about 14, as in Flickr30K.
const LENGTHS: [usize; 16] = [9, 14, 12, 17, 11, 22, 14, 8, 15, 13, 31, 10, 16, 12, 19, 5];
/// Two correct implementations in f32.
const TOLERANCE: f32 = 1e-5;
/// Pairs of an ablation whose selection may differ: two patches at its boundary have nearly equal scores.
const BOUNDARY_PAIRS: usize = 2;
/// The engine runs several times, of which the fastest counts.
const RUNS: usize = 2;
/// Pairs of the training steps whose memory is measured.
const BATCHES: [usize; 3] = [32, 64, 128];
const SEED: u64 = 7;
/// The name of LAPS's own head, whose memory is measured too.
const LAPS: &str = "laps";

/// The heads that compare tokens with words.
fn pairwise_heads() -> Vec<(&'static str, HeadConfig)> {
    let ablation = |ablation| HeadConfig::LapsAblation { ablation };
    vec![
        ("scan_t2i", HeadConfig::ScanT2i),
        ("scan_i2t", HeadConfig::ScanI2t),
        ("scan_all", HeadConfig::ScanAll),
        ("max_mean", HeadConfig::MaxMean),
        ("chan", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
        ("sgr", HeadConfig::Sgr { sim_dim: 256, steps: 3 }),
        ("without_patch_selection", ablation(Ablation::WithoutPatchSelection)),
        ("without_language_context", ablation(Ablation::WithoutLanguageContext)),
        ("without_patch_calibration", ablation(Ablation::WithoutPatchCalibration)),
        ("without_redundant_fusion", ablation(Ablation::WithoutRedundantFusion)),
        ("scan_alignment", ablation(Ablation::ScanAlignment)),
        ("patch_to_word_only", ablation(Ablation::PatchToWordOnly)),
        ("word_to_patch_only", ablation(Ablation::WordToPatchOnly)),
    ]
}

/// The heads that pool.
fn pooling_heads() -> Vec<(&'static str, HeadConfig)> {
    let vsepp = |pooling| HeadConfig::Vsepp { pooling };
    vec![
        ("vsepp_mean", vsepp(Pooling::Mean)),
        ("vsepp_cls", vsepp(Pooling::Cls)),
        ("vsepp_gpo", vsepp(Pooling::Gpo)),
        ("d2s_vse", HeadConfig::D2sVse(D2sVseConfig::default())),
    ]
}

fn main() {
    if let Some(figure) = support::figure() {
        println!("{}", memory(&figure));
        return;
    }
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (sizes, mut wanted): (Vec<String>, Vec<String>) =
        arguments.partition(|argument| argument.parse::<usize>().is_ok());
    let items = sizes.first().and_then(|size| size.parse().ok()).unwrap_or(ITEMS);
    let all = wanted.len();
    wanted.retain(|name| name != "memory");
    if wanted.len() < all {
        memory_table(items, &wanted);
    } else {
        time_table(items, &wanted);
    }
}

fn is_wanted(name: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)
}

fn time_table(items: usize, wanted: &[String]) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let peak = peak_gflops(threads);
    println!("{threads} threads, {}, peak {peak:.0} GFLOP/s", instruction_set());
    println!("| head | geometry | original on libtorch, us a pair | engine, us a pair | ratio | share of the peak |");
    println!("|---|---|---|---|---|---|");
    for (geometry, config, _) in GEOMETRIES {
        let images = random("images", &[items, config.tokens(), WIDTH]);
        for (name, head) in pairwise_heads().into_iter().filter(|(name, _)| is_wanted(name, wanted)) {
            let captions = captions_of(head).min(items);
            let lengths: Vec<usize> = LENGTHS.iter().copied().cycle().take(captions).collect();
            println!("| `{name}` | {geometry} {}", compare(head, config, &images, &lengths, peak));
        }
    }
}

fn memory_table(items: usize, wanted: &[String]) {
    println!("{} threads, {}, MiB above the embeddings", rayon::current_num_threads(), instruction_set());
    let batches = BATCHES.map(|batch| format!("training, batch {batch}")).join(" | ");
    println!("| head | geometry | engine, {items} images | {batches} |");
    println!("|---|---|---|---|---|---|");
    let others = pairwise_heads().into_iter().chain(pooling_heads()).map(|(name, _)| name);
    let names: Vec<&str> = std::iter::once(LAPS).chain(others).filter(|name| is_wanted(name, wanted)).collect();
    for (geometry, ..) in GEOMETRIES {
        for &name in &names {
            let engine = support::peak(&format!("engine:{name}:{geometry}:{items}"));
            let training =
                BATCHES.map(|batch| format!("{:.0}", support::peak(&format!("training:{name}:{geometry}:{batch}"))));
            println!("| `{name}` | {geometry} | {engine:.0} | {} |", training.join(" | "));
        }
    }
}

/// MiB of the peak that `figure` names: what, head, geometry and number of items.
fn memory(figure: &str) -> f64 {
    let parts: Vec<&str> = figure.split(':').collect();
    let [what, name, geometry, count] = parts[..] else { panic!("`{figure}` cannot be measured") };
    let (_, config, entry) = GEOMETRIES.into_iter().find(|(name, ..)| *name == geometry).expect("a geometry");
    let head = pairwise_heads().into_iter().chain(pooling_heads()).find(|(other, _)| *other == name);
    let head = head.map(|(_, head)| head);
    assert!(head.is_some() || name == LAPS, "unknown head `{name}`");
    set_threads(rayon::current_num_threads());
    let measure = |count: usize| match what {
        "engine" => engine_peak(head, config, count),
        _ => training_peak(head, config, entry, count),
    };
    measure(2);
    support::mebibytes(measure(count.parse().expect("a number")))
}

/// Peak memory of computing `count` images by as many captions, fewer for `sgr`; None is LAPS's own head.
fn engine_peak(head: Option<HeadConfig>, config: AlignmentConfig, count: usize) -> Option<u64> {
    let engine: Box<dyn SimilarityEngine> = match head {
        Some(head) => Box::new(engine(head, config)),
        None => {
            let weights = weights(SEED, &config).expect("weights");
            Box::new(Engine::new(config, &weights, EngineOptions::default()).expect("valid sizes"))
        }
    };
    let number = head.map_or(ITEMS, captions_of).min(count);
    let (images, words) = match head.is_some_and(|head| head.pools()) {
        true => {
            let vectors = |number| vec![random("caption", &[1, WIDTH]); number];
            (random("images", &[count, 1, WIDTH]), vectors(number))
        }
        false => {
            let images = RandomImages { seed: SEED, images: count, config }.to_array().expect("images");
            (images, captions(SEED, number, WIDTH).expect("captions"))
        }
    };
    let matrix = CaptionMatrix::from_arrays(&words, WIDTH).expect("captions");
    drop(words);
    let watermark = Watermark::reset();
    black_box(engine.similarities(&images, &matrix).expect("valid embeddings"));
    watermark.above()
}

/// Peak memory of a training step of `batch` pairs; None is LAPS's own head, with the sizes of `entry`.
fn training_peak(head: Option<HeadConfig>, config: AlignmentConfig, entry: &str, batch: usize) -> Option<u64> {
    let images = RandomImages { seed: SEED, images: batch, config }.to_array().expect("images");
    let captions = captions(SEED, batch, WIDTH).expect("captions");
    let device = TorchDevice::open(Device::Cpu).expect("the CPU");
    let hinge = HingeLoss { margin: 0.2, negatives: Negatives::All, weight: 1.0 };
    let mut step: Box<dyn FnMut() -> f64> = match head {
        Some(head) => {
            let mut step = HeadStep::new(head, config, &images, &captions, SEED, device).expect("a step");
            Box::new(move || step.forward_backward(&hinge).expect("valid embeddings"))
        }
        None => {
            let model = registry::find(entry).expect("an entry").model;
            let step = AlignmentStep::new(&model, &images, &captions, SEED, device).expect("a step");
            Box::new(move || step.forward_backward(AlignmentMethod::Vectorised, &hinge).expect("valid embeddings"))
        }
    };
    let watermark = Watermark::reset();
    black_box(step());
    watermark.above()
}

fn captions_of(head: HeadConfig) -> usize {
    if matches!(head, HeadConfig::Sgr { .. }) { SGR_CAPTIONS } else { ITEMS }
}

fn random(name: &str, shape: &[usize]) -> Array {
    let mut random = SplitMix64::named(11, name);
    let values = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
    Array::new(shape, values).expect("values of the shape")
}

fn initial(parameter: &Parameter) -> laps_model::Result<Array> {
    Ok(init_parameters(std::slice::from_ref(parameter), 3)?.swap_remove(0).1)
}

fn engine(head: HeadConfig, config: AlignmentConfig) -> HeadEngine {
    let (options, level) = (EngineOptions::default(), SimdLevel::detect());
    let AlignmentConfig { has_class_token, width, .. } = config;
    let sizes = HeadSizes { tokens: config.tokens(), has_class_token, width, word_width: width };
    let engine = match head {
        HeadConfig::LapsAblation { ablation } => HeadEngine::of_ablation(ablation, config, initial, options, level),
        _ => HeadEngine::with_sizes(head, sizes.encoded(&head), initial, options, level),
    };
    engine.expect("the head has an engine")
}

/// The rest of a row of the table.
fn compare(head: HeadConfig, config: AlignmentConfig, images: &Array, lengths: &[usize], peak: f64) -> String {
    let words: Vec<Array> = lengths
        .iter()
        .enumerate()
        .map(|(caption, &length)| random(&format!("caption {caption}"), &[1, length, WIDTH]))
        .collect();
    let mut captions = CaptionMatrix::new(WIDTH);
    for (words, &length) in words.iter().zip(lengths) {
        captions.push(&[length, WIDTH], words.values()).expect("words of the width");
    }
    let engine = engine(head, config);
    let mut engine_seconds = f64::INFINITY;
    let mut similarities = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        let found = black_box(engine.similarities(black_box(images), &captions)).expect("valid embeddings");
        engine_seconds = engine_seconds.min(began.elapsed().as_secs_f64());
        similarities = found.values().to_vec();
    }

    let _guard = tch::no_grad_guard();
    let device = TorchDevice::open(Device::Cpu).expect("the CPU");
    let upload = move |array: &Array| Torch::upload(array, &device);
    let path = ParamPath::root(Rc::new(move |parameter: Parameter| upload(&initial(&parameter)?)));
    let definition: Head<Torch> = build_head(&head, &config, &path).expect("valid sizes");
    let count = images.dims()[0];
    let shard_images = HeadLoop::shard(&head).unwrap_or(SHARD).min(count);
    let shard = images.rows(0..shard_images).expect("enough images");
    let original = HeadLoop::new(head, &shard, device).expect("valid embeddings");
    let of_images = definition.image_features(&upload(&shard).expect("a tensor")).expect("valid embeddings");
    let some = match head {
        // CHAN's evaluation has no loop: it computes all captions of a shard at once.
        HeadConfig::Chan { .. } => shard_images,
        _ => LOOP_CAPTIONS,
    };
    let some = some.min(lengths.len());
    let captions_of_original: Vec<Array> = words
        .iter()
        .zip(lengths)
        .take(some)
        .map(|(words, &length)| Array::new(&[length, WIDTH], words.values().to_vec()).expect("words of the width"))
        .collect();
    let inputs: Vec<(Torch, Torch)> = words
        .iter()
        .take(some)
        .map(|words| {
            let mask = Array::new(&words.dims()[..2], vec![1.0; words.dims()[1]]).expect("a mask");
            (upload(words).expect("a tensor"), upload(&mask).expect("a tensor"))
        })
        .collect();
    // Matrices of `shard_images` rows, whose columns together are the captions.
    let compute = || -> Vec<Torch> {
        if let Some(original) = &original {
            return vec![original.similarities(&captions_of_original).expect("valid embeddings")];
        }
        let column = |(words, mask): &(Torch, Torch)| {
            let of_caption = definition.caption_features(words, mask, None).expect("valid embeddings");
            definition.compare(&of_images, &of_caption, mask).expect("valid embeddings")
        };
        inputs.iter().map(column).collect()
    };
    let mut different = 0;
    // The first run allocates memory and starts threads.
    let mut first = 0;
    for matrix in compute() {
        let matrix = matrix.download().expect("values");
        let columns = matrix.values().len() / shard_images;
        for (pair, &expected) in matrix.values().iter().enumerate() {
            let found = similarities[pair / columns * lengths.len() + first + pair % columns];
            let difference = (found - expected).abs();
            different += usize::from(difference.is_nan() || difference >= TOLERANCE);
        }
        first += columns;
    }
    assert_eq!(first, some, "every caption of the loop is compared");
    let allowed = if head.has_ratios() { BOUNDARY_PAIRS } else { 0 };
    assert!(different <= allowed, "{head}: {different} pairs differ by {TOLERANCE} or more");
    let began = Instant::now();
    black_box(compute());
    let loop_micros = began.elapsed().as_secs_f64() * 1e6 / (shard_images * some) as f64;
    let pairs = (count * lengths.len()) as f64;
    let engine_micros = engine_seconds * 1e6 / pairs;
    let mean =
        |terms: fn(f64) -> f64| lengths.iter().map(|&length| terms(length as f64)).sum::<f64>() / lengths.len() as f64;
    let gigaflops =
        2.0 * multiply_adds(head, config, mean(|words| words), mean(|words| words * words)) / engine_micros / 1e3;
    format!(
        "| {loop_micros:.1} | {engine_micros:.2} | {:.1} | {:.0} % |",
        loop_micros / engine_micros,
        100.0 * gigaflops / peak
    )
}

/// Multiply-adds of the products that the engine computes for a pair, by the means of a caption's words and of their squares.
/// The groups of an ablation of LAPS are not counted.
fn multiply_adds(head: HeadConfig, config: AlignmentConfig, words: f64, squares: f64) -> f64 {
    let (tokens, width) = (config.tokens() as f64, config.width as f64);
    let products = words * tokens * width;
    match head {
        HeadConfig::ScanT2i | HeadConfig::LapsAblation { ablation: Ablation::ScanAlignment } => {
            products + words * tokens * tokens
        }
        HeadConfig::ScanI2t => products + squares * tokens,
        HeadConfig::ScanAll => products + words * tokens * tokens + squares * tokens,
        HeadConfig::Sgr { sim_dim, steps } => {
            let (nodes, squares, size) = (words + 1.0, squares + 2.0 * words + 1.0, sim_dim as f64);
            let whole_steps = (steps.max(1) - 1) as f64;
            let step = 2.0 * nodes * size * size + 2.0 * squares * size;
            2.0 * products + nodes * width * size + whole_steps * step + 2.0 * (size + nodes) * size
        }
        _ => products,
    }
}
