//! The exact similarity engine for CPUs.
//!
//! LAPS selects and aggregates the patches of an image for each caption. By its definition, each pair needs a forward pass
//! of the alignment. The engine computes the same in exact arithmetic. With normalised patches `n_l`, their norms `r_l` and
//! normalised words `t_j`:
//!
//! - `P = n T^T`, the products of patches and the words of all captions, is one large matrix product. Everything else is
//!   small.
//! - The score of a patch is its cosine with the mean patch, which belongs to the image, plus a weighted sum of its row of
//!   `P` over the words of the caption, because the mean word is a sum of words.
//! - A group is normalised after its softmax, so the denominator cancels. The group has the direction of `sum of E_kl n_l`
//!   over the kept patches, with `E_kl = exp(logit_kl - peak_k) r_l`, which belongs to the image. Its products with the
//!   words are sums of `E_kl P_lj`.
//! - The squared norm of a group is a quadratic form in the products of patches `G = n n^T`. The reference selection `R`
//!   holds the patches that are kept by the image's part of the score alone. Only the difference `d` between the caption's
//!   selection and `R` has to be computed: `|g_R + d|^2 = |g_R|^2 + 2 g_R.d + |d|^2`, where `|g_R|^2` and `g_R.n_l` belong to
//!   the image. On random embeddings at ViT-224 this is a quarter of the work of the 98 kept patches.
//! - The fused patch is computed in the same way, with the weights `exp(score)` of the dropped patches. If none is dropped,
//!   it is the zero vector and has similarity 0 to every word.
//!
//! Products of patches lose digits if the terms of a group cancel. The sizes of the sums show this. The norm is then
//! computed from all kept patches, and if that is not enough, the token is computed as a vector by the definition.
//! [`PairCounts`] counts both cases.
//!
//! A first pass in bf16, followed by f32 for the pairs that can change a rank, was considered and rejected. bf16 products
//! are 1.85 times as fast, and products are three quarters of the time of a pair at ViT-224, so without a second pass it
//! would be 1.5 times as fast. A patch that is selected differently changes a similarity by up to 0.01 (simulated on random
//! embeddings). In a trained model's matrix of 243 x 1,215, 7 % of the pairs are within that distance of a decisive score
//! and need a second pass, which leaves a factor of about 1.3. The bound of 0.01 is an observation: the proven bound of the
//! products, 0.004, leaves the selection of nearly every caption open.
//!
//! The order of every sum depends only on the sizes of the model and the instruction set. The similarity of a pair has the
//! same bits alone, in a matrix, in any tile and with any number of threads.

mod ablated;
mod aligned;
mod captions;
mod config;
mod engine;
mod explanation;
mod fingerprint;
mod fused;
mod gram;
mod groups;
mod head_explanation;
mod head_kernel;
mod head_model;
mod head_worker;
mod heads;
mod images;
mod matrix_file;
mod packed;
mod pair;
mod plan;
mod product;
mod run;
mod scratch;
mod selection;
mod sgr;
mod simd;
mod similarity_engine;
mod sink;
mod source;
mod stages;
mod tokens;
mod vector;
mod weights;
mod worker;

#[cfg(test)]
pub(crate) mod tests;

pub use captions::CaptionMatrix;
pub(crate) use captions::norm;
pub(crate) use config::LEAKY_SLOPE;
pub use config::{AlignmentConfig, CANCELLATION, MIN_SQUARED_NORM};
pub use engine::{Engine, EngineOptions};
pub use explanation::{Explanation, PatchExplanation, TokenExplanation, TokenKind, WordExplanation};
pub use fingerprint::Fingerprint;
pub use head_explanation::explain_head;
pub use heads::HeadEngine;
pub use images::PreparedImages;
pub use matrix_file::MatrixFile;
pub use packed::PackedRows;
pub use plan::{Plan, Tile};
pub use run::RunOutcome;
pub use scratch::PairCounts;
pub(crate) use selection::{patches, select_patches};
pub(crate) use simd::MAX_LANES;
pub use simd::SimdLevel;
pub use similarity_engine::SimilarityEngine;
pub use sink::{TileSink, whole_matrix};
pub use source::ImageSource;
pub use stages::{PairStage, StageTimes};
pub(crate) use tokens::{ImageTokens, MeanPatch, group_peaks};
pub use weights::AggregationWeights;

/// Name of the instruction set that engines use on this machine: `avx512`, `avx2` or `portable`.
pub fn instruction_set() -> &'static str {
    SimdLevel::detect().name()
}
