//! The product of words and tokens at the engine's sizes: the engine's kernel against general matrix products, each on one
//! thread, in the same run.
//!
//! The engine packs the tokens of an image once for all blocks of words, so only packing the words is timed. The others get
//! both matrices unpacked and pack what they need.
#![allow(clippy::expect_used, reason = "a benchmark without its inputs must fail")]
#![allow(
    unsafe_code,
    reason = "the entry points of the crates take raw pointers; lengths are asserted beside the calls"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode, Throughput};
use laps_align::similarity::{PackedRows, SimdLevel};
use laps_bench::alignment::peak_gflops;

/// The product of `(words, dim)` and the transpose of `(tokens, dim)`.
#[derive(Clone, Copy)]
struct ProductSizes {
    name: &'static str,
    tokens: usize,
    width: usize,
    words: usize,
}

/// One image of each model, a tile of images, and a square product for comparison with other benchmarks.
const SIZES: [ProductSizes; 5] = [
    ProductSizes { name: "vit_image", tokens: 197, width: 512, words: 120 },
    ProductSizes { name: "swin_image", tokens: 49, width: 512, words: 120 },
    ProductSizes { name: "vit_tile", tokens: 16 * 197, width: 512, words: 120 },
    ProductSizes { name: "swin_tile", tokens: 65 * 49, width: 512, words: 120 },
    ProductSizes { name: "square_2048", tokens: 2048, width: 2048, words: 2048 },
];

/// Bound of the difference between two summation orders, relative to the sum of absolute terms of at most 1.
const TOLERANCE: f32 = 1e-5;

fn main() {
    laps_torch::set_threads(1);
    let mut criterion = Criterion::default().configure_from_args();
    let mut report = String::new();
    for sizes in SIZES {
        report += &compare(&mut criterion, sizes);
    }
    criterion.final_summary();
    print!("\n{report}");
}

/// Values from -0.5 to 0.5 in a low-discrepancy sequence of the golden ratio.
fn values(count: usize, from: usize) -> Vec<f32> {
    (0..count).map(|index| (((index + from) as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32).collect()
}

fn compare(criterion: &mut Criterion, sizes: ProductSizes) -> String {
    let ProductSizes { name, tokens, width, words } = sizes;
    let [left, right] = [values(words * width, 1), values(tokens * width, 1_000_003)];
    let flops = 2.0 * (words * width * tokens) as f64;
    let peak = peak_gflops(1);
    let mut report = format!("{name}: {words} words x {width} x {tokens} tokens, one thread, peak {peak:.0} GFLOP/s\n");

    let mut group = criterion.benchmark_group(format!("products/{name}"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(flops as u64));
    let mut time = |product: &str, work: &mut dyn FnMut()| {
        let mut times = Vec::new();
        group.bench_function(product, |bencher| {
            bencher.iter_custom(|iterations| {
                let began = Instant::now();
                (0..iterations).for_each(|_| work());
                let time = began.elapsed();
                times.push(time.as_secs_f64() / iterations as f64);
                time
            });
        });
        times.sort_by(f64::total_cmp);
        let gflops = flops / times.get(times.len() / 2).copied().unwrap_or(f64::NAN) / 1e9;
        report += &format!("  {product:24} {gflops:6.1} GFLOP/s, {:3.0} % of the peak\n", 100.0 * gflops / peak);
    };

    for level in SimdLevel::available() {
        let packed = PackedRows::new(&right, width, level).expect("rows");
        let mut scratch = vec![0.0; left.len()];
        let mut output = vec![0.0; words * packed.columns()];
        let mut work = || packed.multiply(black_box(&left), &mut scratch, &mut output).expect("a product");
        work();
        check(&left, &right, sizes, |word, token| output[word * packed.columns() + token]);
        let mut work = || packed.multiply(black_box(&left), &mut scratch, &mut output).expect("a product");
        time(&format!("engine, {}", level.name()), &mut work);
    }
    let mut output = vec![0.0; words * tokens];
    for (product, multiply) in [("gemm", by_gemm as Multiply), ("matrixmultiply", by_matrixmultiply)] {
        multiply(&left, &right, sizes, &mut output);
        check(&left, &right, sizes, |word, token| output[word * tokens + token]);
        time(product, &mut || multiply(black_box(&left), &right, sizes, &mut output));
    }
    {
        use laps_model::{
            array::Array,
            encoder::Device,
            tensor::{DeviceTensor, Tensor},
        };
        use laps_torch::{Torch, TorchDevice};
        let device = TorchDevice::open(Device::Cpu).expect("CPU");
        let upload = |rows, values: &[f32]| {
            let array = Array::new(&[rows, width], values.to_vec()).expect("a matrix");
            Torch::upload(&array, &device).expect("a tensor")
        };
        let [left_tensor, right_tensor] = [upload(words, &left), upload(tokens, &right)];
        let product = left_tensor.linear(&right_tensor, None).expect("a product").download().expect("values");
        check(&left, &right, sizes, |word, token| product.values()[word * tokens + token]);
        time("libtorch", &mut || drop(black_box(left_tensor.linear(&right_tensor, None).expect("a product"))));
    }
    group.finish();
    report
}

type Multiply = fn(&[f32], &[f32], ProductSizes, &mut [f32]);

fn by_gemm(left: &[f32], right: &[f32], ProductSizes { tokens, width, words, .. }: ProductSizes, output: &mut [f32]) {
    assert_eq!([left.len(), right.len(), output.len()], [words * width, tokens * width, words * tokens]);
    // SAFETY: the lengths are those of the matrices, and `output` is borrowed mutably.
    unsafe {
        gemm::gemm(
            words,
            tokens,
            width,
            output.as_mut_ptr(),
            1,
            tokens as isize,
            false,
            left.as_ptr(),
            1,
            width as isize,
            right.as_ptr(),
            width as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn by_matrixmultiply(
    left: &[f32],
    right: &[f32],
    ProductSizes { tokens, width, words, .. }: ProductSizes,
    output: &mut [f32],
) {
    assert_eq!([left.len(), right.len(), output.len()], [words * width, tokens * width, words * tokens]);
    // SAFETY: the lengths are those of the matrices, and `output` is borrowed mutably.
    unsafe {
        matrixmultiply::sgemm(
            words,
            width,
            tokens,
            1.0,
            left.as_ptr(),
            width as isize,
            1,
            right.as_ptr(),
            1,
            width as isize,
            0.0,
            output.as_mut_ptr(),
            tokens as isize,
            1,
        );
    }
}

/// Compares some elements with sums in f64.
fn check(left: &[f32], right: &[f32], sizes: ProductSizes, found: impl Fn(usize, usize) -> f32) {
    let ProductSizes { tokens, width, words, .. } = sizes;
    for (word, token) in (0..97).map(|pair| (pair * 31 % words, pair * 17 % tokens)).chain([(words - 1, tokens - 1)]) {
        let pairs = left[word * width..][..width].iter().zip(&right[token * width..][..width]);
        let expected: f64 = pairs.map(|(&left, &right)| f64::from(left) * f64::from(right)).sum();
        let difference = (found(word, token) - expected as f32).abs();
        assert!(difference <= TOLERANCE * width as f32 / 4.0, "{}: {word} {token}: {difference:e}", sizes.name);
    }
}
