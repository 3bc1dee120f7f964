//! The similarity engine of the heads besides LAPS's against the loop of the originals: one caption after another, with all
//! images of a shard in batched operations of libtorch. What depends on the images alone is computed once a shard, as there.
//! Both use all CPU cores, on the same embeddings, in the same run.
//!
//! `cargo bench -p laps-torch --bench heads` computes 1,000 x 1,000 pairs of both geometries, 1,000 x 100 for `sgr`. `-- HEAD`
//! measures one head, `-- 50` so many images and at most so many captions. The loop computes some of the captions; its time of
//! a pair does not depend on their number.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark without its inputs must fail")]

use std::{hint::black_box, rc::Rc, time::Instant};

use laps_align::similarity::{CaptionMatrix, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine, instruction_set};
use laps_bench::alignment::peak_gflops;
use laps_model::{
    array::Array,
    encoder::Device,
    heads::{ChanAggregation, Head, HeadConfig, HeadSizes},
    params::{ParamPath, Parameter},
    params_init::init_parameters,
    random::SplitMix64,
    tensor::DeviceTensor,
};
use laps_torch::{Torch, TorchDevice};

const WIDTH: usize = 512;
/// Images, and captions of heads other than `sgr`.
const ITEMS: usize = 1000;
/// The shard of the authors' evaluation.
const SHARD: usize = 256;
/// Captions of the loop.
const LOOP_CAPTIONS: usize = 4;
/// Words of each caption; the median is about 14, as in Flickr30K.
const LENGTHS: [usize; 16] = [9, 14, 12, 17, 11, 22, 14, 8, 15, 13, 31, 10, 16, 12, 19, 5];
/// Two correct implementations in f32.
const TOLERANCE: f32 = 1e-5;
/// The engine runs several times, of which the fastest counts.
const RUNS: usize = 2;

fn main() {
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (sizes, wanted): (Vec<String>, Vec<String>) = arguments.partition(|argument| argument.parse::<usize>().is_ok());
    let items = sizes.first().and_then(|size| size.parse().ok()).unwrap_or(ITEMS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let peak = peak_gflops(threads);
    println!("{threads} threads, {}, peak {peak:.0} GFLOP/s", instruction_set());
    println!("| head | geometry | loop on libtorch, us a pair | engine, us a pair | ratio | share of the peak |");
    println!("|---|---|---|---|---|---|");
    let heads = [
        ("scan_t2i", HeadConfig::ScanT2i, 1000),
        ("scan_i2t", HeadConfig::ScanI2t, 1000),
        ("scan_all", HeadConfig::ScanAll, 1000),
        ("max_mean", HeadConfig::MaxMean, 1000),
        ("chan", HeadConfig::Chan { aggregation: ChanAggregation::Mean }, 1000),
        ("sgr", HeadConfig::Sgr { sim_dim: 256, steps: 3 }, 100),
    ];
    for (geometry, tokens, has_class_token) in [("ViT-224", 197, true), ("Swin-224", 49, false)] {
        let sizes = HeadSizes { tokens, has_class_token, width: WIDTH, word_width: WIDTH };
        let images = random("images", &[items, tokens, WIDTH]);
        for (name, head, captions) in heads {
            if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
                let lengths: Vec<usize> = LENGTHS.iter().copied().cycle().take(captions.min(items)).collect();
                println!("| `{name}` | {geometry} {}", compare(head, sizes, &images, &lengths, peak));
            }
        }
    }
}

fn random(name: &str, shape: &[usize]) -> Array {
    let mut random = SplitMix64::named(11, name);
    let values = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
    Array::new(shape, values).expect("values of the shape")
}

/// The rest of a row of the table.
fn compare(head: HeadConfig, sizes: HeadSizes, images: &Array, lengths: &[usize], peak: f64) -> String {
    let read = |parameter: &Parameter| Ok(init_parameters(std::slice::from_ref(parameter), 3)?.swap_remove(0).1);
    let words: Vec<Array> = lengths
        .iter()
        .enumerate()
        .map(|(caption, &length)| random(&format!("caption {caption}"), &[1, length, WIDTH]))
        .collect();
    let mut captions = CaptionMatrix::new(WIDTH);
    for (words, &length) in words.iter().zip(lengths) {
        captions.push(&[length, WIDTH], words.values()).expect("words of the width");
    }
    let engine = HeadEngine::with_sizes(head, sizes, read, EngineOptions::default(), SimdLevel::detect())
        .expect("the head has an engine");
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
    let path = ParamPath::root(Rc::new(move |parameter: Parameter| upload(&read(&parameter)?)));
    let definition = Head::<Torch>::new(&head, &sizes, &path).expect("valid sizes");
    let count = images.dims()[0];
    let shard = upload(&images.rows(0..SHARD.min(count)).expect("enough images")).expect("a tensor");
    let shard_images = SHARD.min(count);
    let some = LOOP_CAPTIONS.min(lengths.len());
    let inputs: Vec<(Torch, Torch)> = words
        .iter()
        .take(some)
        .map(|words| {
            let mask = Array::new(&words.dims()[..2], vec![1.0; words.dims()[1]]).expect("a mask");
            (upload(words).expect("a tensor"), upload(&mask).expect("a tensor"))
        })
        .collect();
    let compute = || -> Vec<Torch> {
        let of_images = definition.image_features(&shard).expect("valid embeddings");
        let column = |(words, mask): &(Torch, Torch)| {
            let of_caption = definition.caption_features(words, mask, None).expect("valid embeddings");
            definition.compare(&of_images, &of_caption, mask).expect("valid embeddings")
        };
        inputs.iter().map(column).collect()
    };
    // The first run allocates memory and starts threads.
    for (caption, column) in compute().iter().enumerate() {
        for (image, &expected) in column.download().expect("values").values().iter().enumerate() {
            let found = similarities[image * lengths.len() + caption];
            assert!((found - expected).abs() < TOLERANCE, "{head}: {found} and {expected}");
        }
    }
    let began = Instant::now();
    black_box(compute());
    let loop_micros = began.elapsed().as_secs_f64() * 1e6 / (shard_images * some) as f64;
    let pairs = (count * lengths.len()) as f64;
    let engine_micros = engine_seconds * 1e6 / pairs;
    let mean =
        |terms: fn(f64) -> f64| lengths.iter().map(|&length| terms(length as f64)).sum::<f64>() / lengths.len() as f64;
    let gigaflops =
        2.0 * multiply_adds(head, sizes, mean(|words| words), mean(|words| words * words)) / engine_micros / 1e3;
    format!(
        "| {loop_micros:.1} | {engine_micros:.2} | {:.1} | {:.0} % |",
        loop_micros / engine_micros,
        100.0 * gigaflops / peak
    )
}

/// Multiply-adds of the products that the engine computes for a pair, by the means of a caption's words and of their squares.
fn multiply_adds(head: HeadConfig, sizes: HeadSizes, words: f64, squares: f64) -> f64 {
    let (tokens, width) = (sizes.tokens as f64, sizes.width as f64);
    let products = words * tokens * width;
    match head {
        HeadConfig::ScanT2i => products + words * tokens * tokens,
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
