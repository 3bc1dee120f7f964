//! Stacked cross attention (Lee et al., ECCV 2018), as LAPS's public code computes it.

use super::{LEAKY_SLOPE, MASK_LOGIT, NORM_EPS, SOFT_NORM_EPS, attention, cosines, mean_over_words};
use crate::{Result, tensor::Tensor};

/// Temperature of the attention of tokens to words.
pub const TOKEN_TEMPERATURE: f64 = 4.0;

/// The direction of the attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanDirection {
    /// Words attend to tokens.
    TextToImage,
    /// Tokens attend to words.
    ImageToText,
    /// The mean of both.
    Both,
}

impl ScanDirection {
    pub(super) fn forward<T: Tensor>(self, tokens: &T, words: &T, mask: &T) -> Result<T> {
        let (tokens, words) = (tokens.normalize(NORM_EPS)?, words.normalize(NORM_EPS)?);
        let cosines = cosines(&tokens, &words)?;
        let text_to_image = || text_to_image(&cosines, &tokens, &words, mask);
        let image_to_text = || image_to_text(&cosines, &tokens, &words, mask);
        match self {
            Self::TextToImage => text_to_image(),
            Self::ImageToText => image_to_text(),
            Self::Both => text_to_image()?.add(&image_to_text()?)?.affine(0.5, 0.0),
        }
    }
}

fn text_to_image<T: Tensor>(cosines: &T, tokens: &T, words: &T, mask: &T) -> Result<T> {
    let context = attention::attend(&attention::words_to_tokens(cosines, mask)?, tokens)?.normalize(NORM_EPS)?;
    let found = context.mul(words)?.sum(3)?;
    mean_over_words(&found, mask)
}

fn image_to_text<T: Tensor>(cosines: &T, tokens: &T, words: &T, mask: &T) -> Result<T> {
    let [images, captions, length, count] = cosines.sizes()?;
    let [_, _, width] = words.sizes()?;
    let positive = cosines.leaky_relu(LEAKY_SLOPE)?.permute(&[0, 1, 3, 2])?;
    // The norm of each word's column is over the tokens. That of padding is 0, where the root has no finite gradient.
    let padding = mask.affine(-1.0, 1.0)?.reshape(&[captions, 1.into(), length])?;
    let norms = positive.mul(&positive)?.sum(2)?.add(&padding)?.sqrt()?.affine(1.0, SOFT_NORM_EPS)?;
    let absent = mask.affine(MASK_LOGIT, -MASK_LOGIT)?.reshape(&[captions, 1.into(), length])?;
    let weights = positive.div(&norms)?.affine(TOKEN_TEMPERATURE, 0.0)?.add(&absent)?.softmax()?;
    let context = weights.matmul(words)?.normalize(NORM_EPS)?;
    let found = context.mul(&tokens.reshape(&[images, 1.into(), count, width])?)?.sum(3)?;
    found.reshape(&[images, captions, count])?.mean(2)?.reshape(&[images, captions])
}
