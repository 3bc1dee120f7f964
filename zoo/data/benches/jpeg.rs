//! JPEG decoding by libjpeg-turbo with and without its SIMD code, in one build: a second process has `JSIMD_FORCENONE` set,
//! which turns that code off.
//!
//! `cargo bench -p laps-data --bench jpeg [-- FILE ...]` decodes files, or smoothed noise of 500 x 375 pixels. It prints the
//! medians of the times of a file, and fails if the two processes decode different bytes, or
//! if SIMD code makes no difference.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark without its inputs must fail")]

use std::{
    env, fs,
    hint::black_box,
    process::{Command, Stdio},
    time::Instant,
};

use laps_data::image::{RgbImage, decode, jpeg};
use laps_model::random::SplitMix64;

/// Environment variable of libjpeg-turbo that turns its SIMD code off.
const NO_SIMD: &str = "JSIMD_FORCENONE";
const WIDTH: usize = 500;
const HEIGHT: usize = 375;
const QUALITY: u8 = 90;
/// Rounds over all files; the median counts.
const ROUNDS: usize = 15;
/// Decoded files of a round, at least.
const DECODED: usize = 60;

fn main() {
    let paths: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let files: Vec<Vec<u8>> = match paths.is_empty() {
        true => vec![jpeg(&noise(), QUALITY).expect("a JPEG file")],
        false => paths.iter().map(|path| fs::read(path).expect("a file")).collect(),
    };
    let (millis, checksum) = measure(&files);
    if env::var_os(NO_SIMD).is_some() {
        println!("{millis} {checksum}");
        return;
    }
    let program = env::current_exe().expect("path of this program");
    let output = Command::new(program).args(&paths).env(NO_SIMD, "1").stderr(Stdio::inherit()).output();
    let text = String::from_utf8(output.expect("child process").stdout).expect("text");
    let (scalar, other) = text.trim().split_once(' ').expect("time and checksum");
    let scalar: f64 = scalar.parse().expect("a number");
    assert_eq!(other, checksum.to_string(), "SIMD code changes the decoded bytes");
    assert!(
        scalar > 1.05 * millis,
        "SIMD makes no difference: {millis:.2} ms with, {scalar:.2} ms without; libjpeg-turbo may have been built without nasm"
    );
    println!("| | ms |\n|---|---|");
    println!("| without SIMD | {scalar:.2} (1.0x) |\n| with SIMD | {millis:.2} ({:.1}x) |", scalar / millis);
}

/// Median time of a file in milliseconds, and a checksum of all decoded bytes.
fn measure(files: &[Vec<u8>]) -> (f64, u64) {
    let pixels = |file: &Vec<u8>| decode(black_box(file)).expect("a JPEG file").image.pixels().to_vec();
    let checksum = files.iter().flat_map(pixels).fold(0_u64, |sum, byte| {
        // FNV-1a.
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let passes = DECODED.div_ceil(files.len());
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for file in files.iter().cycle().take(passes * files.len()) {
                black_box(decode(black_box(file)).expect("a JPEG file"));
            }
            began.elapsed().as_secs_f64() * 1e3 / (passes * files.len()) as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[ROUNDS / 2], checksum)
}

/// Smoothed noise.
fn noise() -> RgbImage {
    let mut random = SplitMix64::named(7, "jpeg");
    let mut value = 128.0;
    let mut smooth = || {
        value = 0.9 * value + 0.1 * (128.0 + 400.0 * random.normal());
        value.clamp(0.0, 255.0) as u8
    };
    let pixels = (0..WIDTH * HEIGHT * 3).map(|_| smooth()).collect();
    RgbImage::new(WIDTH, HEIGHT, pixels).expect("pixels of the size")
}
