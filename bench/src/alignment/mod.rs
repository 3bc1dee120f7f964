//! The alignment alone, measured on random embeddings of real sizes: how long a pair takes, and what it takes.

mod inputs;
mod lengths;
mod measure;
mod memory;
mod peak;
mod result;
mod stages;

pub use inputs::{RandomImages, captions, weights};
pub use lengths::Lengths;
pub use measure::{AlignmentEngine, Request, measure};
pub use memory::Watermark;
pub use peak::peak_gflops;
pub use result::{AlignmentMeasurement, SCHEMA, render};
pub use stages::{StageCost, Stages};

use laps_align::similarity::AlignmentConfig;

/// Floating-point operations of the product of all words with all tokens of the images, which no exact engine can do
/// without.
pub fn product_flops(config: &AlignmentConfig, images: usize, words: usize) -> f64 {
    2.0 * config.width as f64 * (images * config.tokens()) as f64 * words as f64
}
