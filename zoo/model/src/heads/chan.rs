//! Hard assignment coding (Pan et al., CVPR 2023): each word takes its most similar token.

use super::{ChanAggregation, cosines, mean_over_words, soft_normalize};
use crate::{Result, tensor::Tensor};

/// Temperature of the log-sum-exp of `chan`, which is not multiplied back.
pub const LSE_TEMPERATURE: f64 = 0.1;

pub(super) fn forward<T: Tensor>(aggregation: ChanAggregation, tokens: &T, words: &T, mask: &T) -> Result<T> {
    let best = cosines(&soft_normalize(tokens)?, &soft_normalize(words)?)?.max(3)?;
    match aggregation {
        ChanAggregation::Mean => mean_over_words(&best, mask),
        ChanAggregation::Lse => {
            let [images, captions, length, _] = best.sizes()?;
            // Cosines lie within 1, so the exponentials are at most exp(10).
            let terms =
                best.affine(1.0 / LSE_TEMPERATURE, 0.0)?.exp()?.reshape(&[images, captions, length])?.mul(mask)?;
            terms.sum(2)?.ln()?.reshape(&[images, captions])
        }
    }
}
