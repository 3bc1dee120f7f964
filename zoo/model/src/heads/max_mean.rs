//! LAPS's plain alignment over all tokens, without slimming, halved.

use super::{LEAKY_SLOPE, MASK_LOGIT, NORM_EPS, cosines, mean_over_words};
use crate::{Result, tensor::Tensor};

pub(super) fn forward<T: Tensor>(tokens: &T, words: &T, mask: &T) -> Result<T> {
    let cosines = cosines(&tokens.normalize(NORM_EPS)?, &words.normalize(NORM_EPS)?)?.leaky_relu(LEAKY_SLOPE)?;
    let [images, captions, length, count] = cosines.sizes()?;
    let of_words = mean_over_words(&cosines.max(3)?, mask)?;
    let absent = mask.affine(MASK_LOGIT, -MASK_LOGIT)?.reshape(&[captions, length, 1.into()])?;
    let of_tokens = cosines.add(&absent)?.max(2)?.reshape(&[images, captions, count])?.mean(2)?;
    of_words.add(&of_tokens.reshape(&[images, captions])?)?.affine(0.5, 0.0)
}
