//! Resampling: Pillow's antialiased bicubic, bit for bit, and OpenCV's bilinear on floats.
//!
//! When an image shrinks, the filter widens by the same factor. Weights are computed in f64, normalised and rounded to
//! fixed point; first all rows are resampled horizontally to 8-bit values, then all columns. A side that keeps its size
//! is not resampled. Pillow 13 swaps the two passes for portrait images: its results differ by 1 in places.

use std::ops::Range;

use super::RgbImage;

/// Fractional bits of a weight: what 32 bits leave after 8 of a value and 2 for the overshoot and the sign.
const PRECISION: u32 = 32 - 8 - 2;
/// Radius of the bicubic filter in pixels.
const SUPPORT: f64 = 2.0;
/// The free parameter of the bicubic filter.
const A: f64 = -0.5;

/// Resizes `image` to `width` x `height`, both at least 1.
pub fn resize(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let [width, height] = [width, height].map(|side| side.max(1));
    resize_part(image, width, height, 0..width, 0..height)
}

/// The pixels `columns` and `rows` of `image` resized to `width` x `height`. No others are computed.
pub(super) fn resize_part(
    image: &RgbImage,
    width: usize,
    height: usize,
    columns: Range<usize>,
    rows: Range<usize>,
) -> RgbImage {
    let mut result = image.clone();
    if width != image.width || columns != (0..width) {
        result = horizontal(&result, width, columns);
    }
    if height != image.height || rows != (0..height) {
        result = vertical(&result, height, rows);
    }
    result
}

/// Resizes `image` to `size` x `size` with bilinear weights of the two nearest pixels of each axis, without antialiasing, as
/// `cv2.resize` does with an image of floats. Writes the values, from 0 to 255, to `planes` `(3, size, size)`.
pub(super) fn bilinear(image: &RgbImage, size: usize, planes: &mut [f32]) {
    let [columns, rows] = [image.width, image.height].map(|side| neighbours(side, size));
    let at =
        |channel: usize, row: usize, column: usize| f32::from(image.pixels[(row * image.width + column) * 3 + channel]);
    let targets = planes.chunks_exact_mut(size * size).enumerate();
    for (channel, plane) in targets {
        for (line, &(top, bottom, down)) in plane.chunks_exact_mut(size).zip(&rows) {
            for (value, &(left, right, across)) in line.iter_mut().zip(&columns) {
                let mix = |row| at(channel, row, left) * (1.0 - across) + at(channel, row, right) * across;
                *value = mix(top) * (1.0 - down) + mix(bottom) * down;
            }
        }
    }
}

/// The two input pixels of each output pixel of a side, and the weight of the second. Beyond the edge pixels repeat.
fn neighbours(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f64 / to as f64;
    let pixel = |index: usize| {
        let position = ((index as f64 + 0.5) * scale - 0.5).max(0.0);
        let first = (position as usize).min(from - 1);
        (first, (first + 1).min(from - 1), (position - first as f64) as f32)
    };
    (0..to).map(pixel).collect()
}

/// The input pixels of one output pixel.
struct Window {
    start: usize,
    /// Fixed-point weights, which add up to about one.
    weights: Vec<i32>,
}

/// The windows `part` of a side that is resized to `to` pixels.
fn windows(from: usize, to: usize, part: Range<usize>) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = SUPPORT * widening;
    let window = |index: usize| {
        let center = (index as f64 + 0.5) * scale;
        let start = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weights: Vec<f64> = (start..end)
            // The order of these operations determines the last bit.
            .map(|pixel| bicubic((pixel as f64 - center + 0.5) * (1.0 / widening)))
            .collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.iter().map(|weight| fixed_point(if sum == 0.0 { *weight } else { weight / sum }));
        Window { start, weights: weights.collect() }
    };
    part.map(window).collect()
}

fn bicubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Rounds half away from zero.
fn fixed_point(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION) + 0.5f64.copysign(weight)) as i32
}

const HALF: i32 = 1 << (PRECISION - 1);

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

fn horizontal(image: &RgbImage, width: usize, columns: Range<usize>) -> RgbImage {
    let windows = windows(image.width, width, columns);
    let width = windows.len();
    let mut pixels = vec![0; width * image.height * 3];
    for (source, target) in image.pixels.chunks_exact(image.width * 3).zip(pixels.chunks_exact_mut(width * 3)) {
        let source = source.as_chunks::<3>().0;
        for (window, target) in windows.iter().zip(target.as_chunks_mut::<3>().0) {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in source[window.start..].iter().zip(&window.weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            *target = sums.map(clip);
        }
    }
    RgbImage { width, height: image.height, pixels }
}

fn vertical(image: &RgbImage, height: usize, rows: Range<usize>) -> RgbImage {
    let windows = windows(image.height, height, rows);
    let height = windows.len();
    let row = image.width * 3;
    let mut pixels = vec![0; row * height];
    let mut sums = vec![0; row];
    for (window, target) in windows.iter().zip(pixels.chunks_exact_mut(row)) {
        sums.fill(HALF);
        for (source, &weight) in image.pixels[window.start * row..].chunks_exact(row).zip(&window.weights) {
            for (sum, &value) in sums.iter_mut().zip(source) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, &sum) in target.iter_mut().zip(&sums) {
            *value = clip(sum);
        }
    }
    RgbImage { width: image.width, height, pixels }
}
