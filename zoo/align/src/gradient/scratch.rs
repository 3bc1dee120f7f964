//! Buffers for one pair, reused for the next.

use crate::similarity::{AlignmentConfig, MAX_LANES};

/// Tables of a pair with `n` kept patches, in ascending order, and `m` dropped ones.
pub(super) struct GradientScratch {
    /// Scores of the patches, minus infinity in the padding to whole vectors.
    pub(super) scores: Vec<f32>,
    /// Mask of the kept patches.
    pub(super) mask: Vec<u64>,
    /// Indices of all patches: the kept ones, then the dropped ones.
    pub(super) order: Vec<u32>,
    /// Weights of the dropped patches in the fused patch, `(m)`.
    pub(super) fused: Vec<f32>,
    /// Exponentials of the logits, `(n, groups)`.
    pub(super) factors: Vec<f32>,
    /// The same times the gradients of the squared norms, `(n, groups)`.
    pub(super) scaled_factors: Vec<f32>,
    /// Products of kept patches, `(n, n)`, and later their gradients.
    pub(super) gram: Vec<f32>,
    /// Products of kept patches and groups, `(n, groups)`, and later the gradients of the exponentials.
    pub(super) group_products: Vec<f32>,
    /// Products of kept patches and words, `(n, words)`, and later their gradients.
    pub(super) products: Vec<f32>,
    /// Products of groups, fused patch and class token with the words, `(tokens, words)`, and later their cosines.
    pub(super) cosines: Vec<f32>,
    /// Gradients of the cosines, and later of the products.
    pub(super) gradients: Vec<f32>,
    /// Norms of the tokens.
    pub(super) norms: Vec<f32>,
    /// Squared norms of the tokens, and later their gradients.
    pub(super) squares: Vec<f32>,
}

impl GradientScratch {
    /// Buffers for captions of at most `words` words.
    pub(super) fn new(config: &AlignmentConfig, words: usize) -> Self {
        let AlignmentConfig { patches, kept, groups, .. } = *config;
        let tokens = config.aligned_tokens();
        let zeros = |count: usize| vec![0.0; count];
        Self {
            scores: vec![f32::NEG_INFINITY; patches.next_multiple_of(MAX_LANES)],
            mask: vec![0; patches.div_ceil(64)],
            order: vec![0; patches],
            fused: zeros(patches - kept),
            factors: zeros(kept * groups),
            scaled_factors: zeros(kept * groups),
            gram: zeros(kept * kept),
            group_products: zeros(kept * groups),
            products: zeros(kept * words),
            cosines: zeros(tokens * words),
            gradients: zeros(tokens * words),
            norms: zeros(tokens),
            squares: zeros(tokens),
        }
    }
}
