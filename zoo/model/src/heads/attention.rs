//! Stacked cross attention, which SCAN and SGR share.

use super::{LEAKY_SLOPE, SOFT_NORM_EPS};
use crate::{Result, tensor::Tensor};

/// Temperature of the attention of words to tokens.
pub const WORD_TEMPERATURE: f64 = 9.0;

/// Attention of each word to the tokens, `(images, captions, words, tokens)`, from their cosines.
pub(super) fn words_to_tokens<T: Tensor>(cosines: &T, mask: &T) -> Result<T> {
    let [_, captions, length, _] = cosines.sizes()?;
    let present = mask.reshape(&[captions, length, 1.into()])?;
    let positive = cosines.leaky_relu(LEAKY_SLOPE)?.mul(&present)?;
    // The norm of each token's row is over the words.
    let norms = positive.mul(&positive)?.sum(2)?.sqrt()?.affine(1.0, SOFT_NORM_EPS)?;
    positive.div(&norms)?.affine(WORD_TEMPERATURE, 0.0)?.softmax()
}

/// Weighted sums of tokens for each word: `(images, captions, words, tokens)` and `(images, tokens, width)` to
/// `(images, captions, words, width)`.
pub(super) fn attend<T: Tensor>(weights: &T, tokens: &T) -> Result<T> {
    weights.matmul_shared(tokens)
}
