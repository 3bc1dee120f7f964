//! Room for one pair, used again for the next.

use crate::similarity::AlignmentConfig;

/// Tables of a pair. `n` are the patches that it keeps, in ascending order, `m` the others.
pub(super) struct Scratch {
    pub(super) scores: Vec<f32>,
    /// Numbers of all patches: those that are kept, then the others.
    pub(super) order: Vec<u32>,
    /// Weights of the others in the fused patch, `(m)`.
    pub(super) fused: Vec<f32>,
    /// Exponentials, `(n, groups)`, and the same times the gradients of the squared norms.
    pub(super) factors: Vec<f32>,
    pub(super) scaled: Vec<f32>,
    /// Products of patches, `(n, n)`, and their gradients.
    pub(super) gram: Vec<f32>,
    /// Products of patches and groups, `(n, groups)`, and later the gradients of the exponentials.
    pub(super) through: Vec<f32>,
    /// Products of patches and words, `(n, words)`, and later their gradients.
    pub(super) products: Vec<f32>,
    /// Products of groups, fused patch and class token with words, `(tokens, words)`, and later their cosines.
    pub(super) cosines: Vec<f32>,
    /// Gradients of the cosines, and later of the products.
    pub(super) gradients: Vec<f32>,
    /// Norms of the tokens.
    pub(super) norms: Vec<f32>,
    /// Gradients of their squares.
    pub(super) squares: Vec<f32>,
}

impl Scratch {
    /// For captions of at most `words` words.
    pub(super) fn new(config: &AlignmentConfig, words: usize) -> Self {
        let AlignmentConfig { patches, kept, groups, .. } = *config;
        let tokens = config.aligned_tokens();
        let zeros = |count: usize| vec![0.0; count];
        Self {
            scores: zeros(patches),
            order: vec![0; patches],
            fused: zeros(patches - kept),
            factors: zeros(kept * groups),
            scaled: zeros(kept * groups),
            gram: zeros(kept * kept),
            through: zeros(kept * groups),
            products: zeros(kept * words),
            cosines: zeros(tokens * words),
            gradients: zeros(tokens * words),
            norms: zeros(tokens),
            squares: zeros(tokens),
        }
    }
}
