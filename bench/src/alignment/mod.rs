//! Benchmark of the similarity engine alone, on random embeddings of realistic sizes: time and memory per pair, and the
//! time of each stage.

mod inputs;
mod lengths;
mod measure;
mod memory;
mod peak;
mod result;
mod stages;

pub(crate) use inputs::caption_matrix;
pub use inputs::{RandomImages, captions, weights};
pub(crate) use lengths::CaptionLengths;
pub use measure::{AlignmentEngine, AlignmentRequest, measure};
pub use memory::Watermark;
pub use peak::peak_gflops;
pub use result::{AlignmentMeasurement, SCHEMA, render};
pub use stages::{StageCost, Stages};

use laps_align::similarity::AlignmentConfig;

/// Floating-point operations of the matrix product of all words with all image tokens, which every exact engine
/// computes.
pub fn product_flops(config: &AlignmentConfig, images: usize, words: usize) -> f64 {
    2.0 * config.width as f64 * (images * config.tokens()) as f64 * words as f64
}
