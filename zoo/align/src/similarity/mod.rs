//! The exact similarity engine for CPUs.
//!
//! LAPS selects and merges an image's patches anew for every caption. Done as the definition reads, a pair costs a
//! network's forward pass. The following is the same in exact arithmetic, for normalised patches `n_l` with norms `r_l`
//! and normalised words `t_j`:
//!
//! - `P = n T^T`, patches by the words of all captions, is one large matrix product. All else is small.
//! - The score of a patch is a number of the image plus a weighted sum of its row of `P` over the caption's words: the
//!   mean word is a sum of words.
//! - A group is normalised after its softmax, so the denominator cancels: it points along `sum of E_kl n_l` over the
//!   kept patches, `E_kl = exp(logit_kl - peak_k) r_l`, and `E` belongs to the image alone. Its products with words are
//!   sums of `E_kl P_lj`.
//! - Its squared norm is a quadratic form in the products of patches `G = n n^T`. With the patches `R` that the image
//!   alone would keep, only the patches in which a caption differs from `R` are needed: `|g_R + d|^2 = |g_R|^2 +
//!   2 g_R.d + |d|^2`, the first and `g_R.n_l` known of the image. On random embeddings at ViT-224 that is a quarter of
//!   the 98 kept patches' work.
//! - The fused patch likewise, its weights `exp(score)` over the dropped patches. Where none is dropped it is the zero
//!   vector, the sum over no patches: it stays among the tokens, with similarity 0 to every word.
//!
//! Products of patches lose digits where a group's terms cancel; this is seen from the sizes of the sums, and such a
//! group takes a longer way, in the end that of the definition. [`Counts`] tells how often.
//!
//! A first pass in bf16, and a second one in f32 of the pairs that could change a rank, is not done. Its products are 1.85
//! times as fast on registers, and products are three quarters of a pair's time at ViT-224: without any second pass it
//! would be 1.5 times as fast. But a patch that changes sides moves a similarity by up to 0.01 (simulated, random
//! embeddings), and within that of a decisive score lie 7 % of the pairs of a trained model's matrix of 243 x 1,215; those
//! cost their full time again, which leaves about 1.3. And 0.01 was observed: a proven bound on the products, 0.004,
//! leaves the selection of nearly every caption open.
//!
//! Every number is summed in an order that depends on nothing but the sizes of the model and the instruction set: the
//! similarity of a pair is the same, bit for bit, alone, in a matrix, in any tile and with any number of threads.

mod aligned;
mod captions;
mod config;
mod engine;
mod explanation;
mod fingerprint;
mod fused;
mod gram;
mod groups;
mod images;
mod matrix_file;
mod packed;
mod pair;
mod plan;
mod product;
mod scratch;
mod selection;
mod simd;
mod similarity_engine;
mod sink;
mod source;
mod stages;
mod vector;
mod weights;
mod worker;

#[cfg(test)]
pub(crate) mod tests;

pub use captions::CaptionMatrix;

pub use captions::norm;
pub(crate) use config::LEAKY_SLOPE;
pub use config::{AlignmentConfig, CANCELLATION};
pub use engine::{Engine, EngineOptions, Outcome};
pub use explanation::{Explanation, PatchExplanation, TokenExplanation, TokenKind, WordExplanation};
pub use fingerprint::Fingerprint;
pub use images::PreparedImages;
pub use matrix_file::MatrixFile;
pub use packed::PackedRows;
pub use plan::{Plan, Tile};
pub use scratch::Counts;
pub use simd::Level;
pub use similarity_engine::SimilarityEngine;
pub use sink::Sink;
pub use source::{HalfImages, ImageSource};
pub use stages::{Stage, StageTimes};
pub use weights::AggregationWeights;

/// The instruction set that engines use on this machine: `avx512`, `avx2` or `portable`.
pub fn instruction_set() -> &'static str {
    simd::Level::detect().name()
}
