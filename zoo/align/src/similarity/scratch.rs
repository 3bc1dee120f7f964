//! Room for the work on a pair.

use super::{aligned::Aligned, config::AlignmentConfig, images::stride, simd::MOST_LANES};

/// Everything that is written while pairs are worked on; nothing is allocated then.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Scores of the patches, up to a whole vector.
    pub(super) scores: Vec<f32>,
    /// Weights of the dropped patches in the fused one, zero at kept ones, up to a whole vector.
    pub(super) fused: Vec<f32>,
    /// The kept patches.
    pub(super) mask: Vec<u64>,
    /// The kept patches, ascending.
    pub(super) kept: Vec<u32>,
    /// Patches in which a selection differs from the image's own, ascending, or the dropped ones.
    pub(super) list: Vec<u32>,
    /// Factors of listed patches, `(kept, stride)`.
    pub(super) factors: Aligned,
    /// Squared norms of the groups, the class token and the fused patch.
    pub(super) squares: Vec<f32>,
    /// Their inverse norms.
    pub(super) inverse_norms: Vec<f32>,
    /// The largest cosine of each with a word.
    pub(super) best: Vec<f32>,
    /// Their products with the words, `(words, stride)`.
    pub(super) similarities: Aligned,
    /// One token.
    pub(super) token: Vec<f32>,
    /// What happened so far.
    pub(super) counts: Counts,
}

/// How often rounding asked for a longer way to a norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pairs that were computed.
    pub pairs: u64,
    /// Pairs whose norms were computed from all kept patches: the difference to the image's own selection had cancelled
    /// too many digits.
    pub from_all_kept: u64,
    /// Tokens that were computed as vectors: products of patches had cancelled too many digits.
    pub as_vectors: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.from_all_kept += other.from_all_kept;
        self.as_vectors += other.as_vectors;
    }
}

impl Scratch {
    /// For captions of at most `words` words.
    pub(super) fn new(config: &AlignmentConfig, words: usize) -> Self {
        let padded = config.patches.next_multiple_of(MOST_LANES);
        let stride = stride(config);
        Self {
            scores: vec![0.0; padded],
            fused: vec![0.0; padded],
            mask: vec![0; config.patches.div_ceil(64)],
            kept: vec![0; config.patches],
            list: vec![0; config.patches],
            factors: Aligned::zeros(config.kept * stride),
            squares: vec![0.0; stride],
            inverse_norms: vec![0.0; stride],
            best: vec![0.0; stride],
            similarities: Aligned::zeros(words * stride),
            token: vec![0.0; config.width],
            counts: Counts::default(),
        }
    }

    pub(super) fn bytes(config: &AlignmentConfig, words: usize) -> usize {
        let padded = config.patches.next_multiple_of(MOST_LANES);
        4 * (2 * padded + 2 * config.patches + (config.kept + words + 3) * stride(config) + config.width)
            + 8 * config.patches.div_ceil(64)
            + 2 * Aligned::bytes(0)
            + size_of::<Self>()
    }
}
