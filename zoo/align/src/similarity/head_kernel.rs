//! Similarities of one image with a block of captions, for the heads that compare tokens with words and have no parameters.
//!
//! Everything is computed from the products of words and tokens, `(words, tokens)`. The attended vectors of SCAN are never
//! formed: with the weights `e` of a word, which need no denominator, its similarity is `e.p / sqrt(e^T G e)`, where `p` are
//! the products of the word with the tokens and `G` are the products of the tokens with each other. The direction from
//! images to texts uses the products of the words of the caption in the same way.

use std::ops::Range;

use super::simd::{Kernel, Simd};

/// Temperatures of SCAN's attention.
const WORD_TEMPERATURE: f32 = laps_model::heads::WORD_TEMPERATURE as f32;
const TOKEN_TEMPERATURE: f32 = laps_model::heads::TOKEN_TEMPERATURE as f32;
const LEAKY_SLOPE: f32 = super::LEAKY_SLOPE;
/// Smallest squared norm that a root is taken of. Its inverse root is the reciprocal of the 1e-8 that SCAN adds to norms; for
/// a larger norm the sum and the maximum differ by less than the rounding of a cosine.
const MIN_SQUARE: f32 = 1e-16;
/// Smallest squared norm of an attended vector. Below it the similarity is 0 over a small number, not NaN.
pub(super) const MIN_ATTENDED: f32 = 1e-30;

/// Weights of words to tokens before the softmax's denominator, and their products with the tokens' products.
pub(super) struct WordAttention<'a> {
    /// Products of the words of one caption with the tokens, `(words, stride)`, 0 behind the tokens.
    pub(super) products: &'a [f32],
    /// Distance between the rows; a multiple of the vector's length.
    pub(super) stride: usize,
    /// Inverse norms of the tokens' rows; `stride` values.
    pub(super) norms: &'a mut [f32],
    /// Receives the weights, `(words, stride)`.
    pub(super) weights: &'a mut [f32],
    /// Receives `e.p` of each word.
    pub(super) sums: &'a mut [f32],
}

#[inline(always)]
pub(super) fn leaky_relu<S: Simd>(simd: S, value: S::Vector) -> S::Vector {
    simd.max(value, simd.mul(value, simd.splat(LEAKY_SLOPE)))
}

impl Kernel for WordAttention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (column, to) in self.norms.chunks_exact_mut(S::LANES).enumerate() {
            let mut square = simd.splat(0.0);
            for row in self.products.chunks_exact(self.stride) {
                let value = leaky_relu(simd, simd.load(&row[column * S::LANES..]));
                square = simd.mul_add(value, value, square);
            }
            simd.store(simd.inverse_root(simd.max(square, simd.splat(MIN_SQUARE))), to);
        }
        let rows = self.products.chunks_exact(self.stride).zip(self.weights.chunks_exact_mut(self.stride));
        for ((row, weights), sum) in rows.zip(self.sums) {
            let mut total = simd.splat(0.0);
            for start in (0..self.stride).step_by(S::LANES) {
                let product = simd.load(&row[start..]);
                let cosine = simd.mul(leaky_relu(simd, product), simd.load(&self.norms[start..]));
                // At most 0, because a value is at most the norm of its row.
                let logit = simd.mul_add(cosine, simd.splat(WORD_TEMPERATURE), simd.splat(-WORD_TEMPERATURE));
                let weight = simd.exp_negative(logit);
                simd.store(weight, &mut weights[start..]);
                total = simd.mul_add(weight, product, total);
            }
            *sum = simd.sum(total);
        }
    }
}

/// Mean over the words of `e.p / sqrt(e^T G e)`.
pub(super) struct WordSimilarity<'a> {
    /// Weights, `(words, stride)`.
    pub(super) weights: &'a [f32],
    /// Weights times the products of the tokens, `(words, stride)`.
    pub(super) attended: &'a [f32],
    pub(super) stride: usize,
    /// `e.p` of each word.
    pub(super) sums: &'a [f32],
}

impl Kernel for WordSimilarity<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let rows = self.weights.chunks_exact(self.stride).zip(self.attended.chunks_exact(self.stride));
        let mut mean = 0.0;
        for ((weights, attended), sum) in rows.zip(self.sums) {
            let mut square = simd.splat(0.0);
            for start in (0..self.stride).step_by(S::LANES) {
                square = simd.mul_add(simd.load(&weights[start..]), simd.load(&attended[start..]), square);
            }
            mean += sum / simd.sum(square).max(MIN_ATTENDED).sqrt();
        }
        mean / self.sums.len() as f32
    }
}

/// Tokens attend to words: mean over the tokens.
pub(super) struct TokenSimilarity<'a> {
    /// As in [`WordAttention`].
    pub(super) products: &'a [f32],
    pub(super) stride: usize,
    /// Number of tokens.
    pub(super) tokens: usize,
    /// Products of the words of the caption with each other, `(words, words)`.
    pub(super) gram: &'a [f32],
    /// Buffer for the weights, `(words, stride)`.
    pub(super) weights: &'a mut [f32],
}

impl Kernel for TokenSimilarity<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let words = self.products.len() / self.stride;
        let rows = self.products.chunks_exact(self.stride).zip(self.weights.chunks_exact_mut(self.stride));
        for (row, weights) in rows {
            let mut square = simd.splat(0.0);
            for start in (0..self.stride).step_by(S::LANES) {
                let value = leaky_relu(simd, simd.load(&row[start..]));
                square = simd.mul_add(value, value, square);
            }
            let factor = simd.splat(TOKEN_TEMPERATURE / simd.sum(square).max(MIN_SQUARE).sqrt());
            for start in (0..self.stride).step_by(S::LANES) {
                let value = leaky_relu(simd, simd.load(&row[start..]));
                let logit = simd.mul_add(value, factor, simd.splat(-TOKEN_TEMPERATURE));
                simd.store(simd.exp_negative(logit), &mut weights[start..]);
            }
        }
        let mut total = simd.splat(0.0);
        // Products behind the tokens are 0, so their columns add 0.
        for start in (0..self.stride).step_by(S::LANES) {
            let [mut sum, mut square] = [simd.splat(0.0); 2];
            for word in 0..words {
                let mut attended = simd.splat(0.0);
                for other in 0..words {
                    let weight = simd.load(&self.weights[other * self.stride + start..]);
                    attended = simd.mul_add(simd.splat(self.gram[word * words + other]), weight, attended);
                }
                let weight = simd.load(&self.weights[word * self.stride + start..]);
                square = simd.mul_add(weight, attended, square);
                sum = simd.mul_add(weight, simd.load(&self.products[word * self.stride + start..]), sum);
            }
            let inverse = simd.inverse_root(simd.max(square, simd.splat(MIN_ATTENDED)));
            total = simd.mul_add(sum, inverse, total);
        }
        simd.sum(total) / self.tokens as f32
    }
}

/// Largest product of each word with a token.
pub(super) struct BestTokens<'a> {
    pub(super) products: &'a [f32],
    pub(super) stride: usize,
    /// Number of tokens.
    pub(super) tokens: usize,
    /// Receives the maximum of each word.
    pub(super) best: &'a mut [f32],
}

impl Kernel for BestTokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let whole: Range<usize> = 0..self.tokens / S::LANES * S::LANES;
        for (row, best) in self.products.chunks_exact(self.stride).zip(self.best) {
            let mut largest = simd.splat(f32::NEG_INFINITY);
            for start in whole.clone().step_by(S::LANES) {
                largest = simd.max(simd.load(&row[start..]), largest);
            }
            *best = row[whole.end..self.tokens].iter().copied().fold(simd.largest(largest), f32::max);
        }
    }
}

/// Mean over the tokens of the largest leaky product with a word.
pub(super) struct BestWords<'a> {
    pub(super) products: &'a [f32],
    pub(super) stride: usize,
    /// Number of tokens.
    pub(super) tokens: usize,
}

impl Kernel for BestWords<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut total = simd.splat(0.0);
        // Products behind the tokens are 0, so their maxima are 0.
        for start in (0..self.stride).step_by(S::LANES) {
            let mut largest = simd.splat(f32::NEG_INFINITY);
            for row in self.products.chunks_exact(self.stride) {
                largest = simd.max(simd.load(&row[start..]), largest);
            }
            total = simd.add(total, leaky_relu(simd, largest));
        }
        simd.sum(total) / self.tokens as f32
    }
}
