//! Pooled embeddings (Faghri et al., BMVC 2018), with the pooling of GPO (Chen et al., CVPR 2021) as an option.

use super::{NORM_EPS, Pooling, gpo::Gpo, mean_word, soft_normalize};
use crate::{Result, params::ParamPath, tensor::Tensor};

/// Cosine of one vector an image and one vector a caption.
pub struct Vsepp<T> {
    pooling: Pools<T>,
    has_class_token: bool,
}

enum Pools<T> {
    Mean,
    Cls,
    Gpo { image: Gpo<T>, text: Gpo<T> },
}

impl<T> Vsepp<T> {
    pub(super) fn new(pooling: Pooling, has_class_token: bool, path: &ParamPath<T>) -> Result<Self> {
        let pooling = match pooling {
            Pooling::Mean => Pools::Mean,
            Pooling::Cls => Pools::Cls,
            Pooling::Gpo => {
                Pools::Gpo { image: Gpo::new(&path.sub("img_enc.gpool"))?, text: Gpo::new(&path.sub("txt_enc.gpool"))? }
            }
        };
        Ok(Self { pooling, has_class_token })
    }
}

impl<T: Tensor> Vsepp<T> {
    /// The vectors `(images, width)` of images.
    pub(super) fn pool_tokens(&self, tokens: &T) -> Result<T> {
        let [images, _, width] = tokens.sizes()?;
        match &self.pooling {
            Pools::Cls if self.has_class_token => {
                tokens.narrow(1, 0, 1)?.reshape(&[images, width])?.normalize(NORM_EPS)
            }
            Pools::Mean | Pools::Cls => tokens.mean(1)?.reshape(&[images, width])?.normalize(NORM_EPS),
            Pools::Gpo { image, .. } => soft_normalize(&image.pool(tokens)?),
        }
    }

    /// The vectors `(captions, width)` of captions.
    pub(super) fn pool_words(&self, words: &T, mask: &T) -> Result<T> {
        let [captions, _, width] = words.sizes()?;
        match &self.pooling {
            Pools::Mean => mean_word(words, mask)?.normalize(NORM_EPS),
            Pools::Cls => words.narrow(1, 0, 1)?.reshape(&[captions, width])?.normalize(NORM_EPS),
            Pools::Gpo { text, .. } => soft_normalize(&text.pool_masked(words, mask)?),
        }
    }
}
