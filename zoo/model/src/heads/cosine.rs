//! CLIP's own similarity (Radford et al., ICML 2021): the cosine of the projected class token and the projected end token.

use super::{HeadSizes, NORM_EPS};
use crate::{
    Result,
    nn::Linear,
    params::{Init, ParamPath},
    tensor::Tensor,
};

/// The projections of `CLIPModel`.
pub struct Cosine<T> {
    visual_projection: Linear<T>,
    text_projection: Linear<T>,
    /// The exponent of a common factor of all similarities, which does not change their order. It is read so that a
    /// checkpoint is complete, and not applied.
    _logit_scale: T,
}

impl<T> Cosine<T> {
    pub(super) fn new(embed_size: usize, sizes: &HeadSizes, path: &ParamPath<T>) -> Result<Self> {
        Ok(Self {
            visual_projection: Linear::without_bias(sizes.width, embed_size, &path.sub("visual_projection"))?,
            text_projection: Linear::without_bias(sizes.word_width, embed_size, &path.sub("text_projection"))?,
            _logit_scale: path.get("logit_scale", &[], Init::Zeros)?,
        })
    }
}

impl<T: Tensor> Cosine<T> {
    /// The vectors `(images, embed_size)` of images.
    pub(super) fn pool_tokens(&self, tokens: &T) -> Result<T> {
        let [images, _, width] = tokens.sizes()?;
        self.visual_projection.forward(&tokens.narrow(1, 0, 1)?.reshape(&[images, width])?)?.normalize(NORM_EPS)
    }

    /// The vectors `(captions, embed_size)` of captions, whose last word is the end token.
    pub(super) fn pool_words(&self, words: &T, mask: &T) -> Result<T> {
        let [captions, length, width] = words.sizes()?;
        let left = mask.cumulative_sum()?.sub(&mask.sum(1)?)?;
        let is_last = left.affine(1.0, 1.0)?.leaky_relu(0.0)?.mul(mask)?;
        let last = words.mul(&is_last.reshape(&[captions, length, 1.into()])?)?.sum(1)?.reshape(&[captions, width])?;
        self.text_projection.forward(&last)?.normalize(NORM_EPS)
    }
}
