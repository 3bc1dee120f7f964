//! Buffers for the work on a pair.

use super::{aligned::AlignedVec, config::AlignmentConfig, images::stride, simd::MAX_LANES};

/// Everything that is written while pairs are computed. Computing a pair allocates nothing.
#[derive(Debug)]
pub(super) struct PairScratch {
    /// Scores of the patches, padded to a whole vector.
    pub(super) scores: Vec<f32>,
    /// Weights of the dropped patches in the fused patch, zero for kept ones, padded to a whole vector.
    pub(super) fused: Vec<f32>,
    /// Mask of the kept patches.
    pub(super) mask: Vec<u64>,
    /// The kept patches, ascending.
    pub(super) kept: Vec<u32>,
    /// Patches in which the selection differs from the reference selection, ascending, or the dropped ones.
    pub(super) list: Vec<u32>,
    /// Factors of the listed patches, `(kept, stride)`.
    pub(super) factors: AlignedVec,
    /// Squared norms of the groups, the class token and the fused patch.
    pub(super) squares: Vec<f32>,
    /// Inverse norms of the same tokens.
    pub(super) inverse_norms: Vec<f32>,
    /// Largest cosine of each token with a word.
    pub(super) best: Vec<f32>,
    /// Products of the tokens with the words, `(words, stride)`.
    pub(super) similarities: AlignedVec,
    /// A token that is computed as a vector.
    pub(super) token: Vec<f32>,
    /// Counts since the scratch was created.
    pub(super) counts: PairCounts,
}

/// Number of computed pairs, and of norms that needed more work because of cancellation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Computed pairs.
    pub pairs: u64,
    /// Pairs whose norms were computed from all kept patches, because the difference to the reference selection had lost too
    /// many digits.
    pub from_all_kept: u64,
    /// Tokens that were computed as vectors, because products of patches had lost too many digits.
    pub as_vectors: u64,
}

impl PairCounts {
    pub(super) fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.from_all_kept += other.from_all_kept;
        self.as_vectors += other.as_vectors;
    }
}

impl PairScratch {
    /// Buffers for captions of at most `words` words.
    pub(super) fn new(config: &AlignmentConfig, words: usize) -> Self {
        let padded = config.patches.next_multiple_of(MAX_LANES);
        let stride = stride(config);
        Self {
            scores: vec![0.0; padded],
            fused: vec![0.0; padded],
            mask: vec![0; config.patches.div_ceil(64)],
            kept: vec![0; config.patches],
            list: vec![0; config.patches],
            factors: AlignedVec::zeros(config.kept * stride),
            squares: vec![0.0; stride],
            inverse_norms: vec![0.0; stride],
            best: vec![0.0; stride],
            similarities: AlignedVec::zeros(words * stride),
            token: vec![0.0; config.width],
            counts: PairCounts::default(),
        }
    }

    pub(super) fn bytes(config: &AlignmentConfig, words: usize) -> usize {
        let padded = config.patches.next_multiple_of(MAX_LANES);
        4 * (2 * padded + 2 * config.patches + (config.kept + words + 3) * stride(config) + config.width)
            + 8 * config.patches.div_ceil(64)
            + 2 * AlignedVec::bytes(0)
            + size_of::<Self>()
    }
}
