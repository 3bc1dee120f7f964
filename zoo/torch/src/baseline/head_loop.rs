//! The heads without parameters that compare tokens with words, as a plain loop over captions: the baseline of their engine.
//!
//! It follows the originals' evaluation. The images of a shard are normalised once. For each caption, its words are repeated
//! for every image and compared in a batched product, and the vectors that a word or token attends to are formed at full
//! width. [`Head::compare`](laps_model::heads::Head::compare) computes the same with less work.

use tch::{Kind, Tensor as Tch};

use crate::{
    Result, Torch, TorchDevice,
    similarity::{invalid, normalise, to_device},
};
use laps_model::{
    array::Array,
    heads::{ChanAggregation, HeadConfig, TOKEN_TEMPERATURE, WORD_TEMPERATURE},
    models::alignment::LEAKY_SLOPE,
    tensor::DeviceTensor,
};

/// Added to the norms of attention.
const ATTENTION_EPS: f64 = 1e-8;

/// Compares captions with the images of a shard.
pub struct HeadLoop {
    head: HeadConfig,
    device: TorchDevice,
    /// Normalised tokens `(images, tokens, dim)`.
    images: Tch,
    /// The slope of the leaky ReLU, `(1)`.
    slope: Tch,
}

impl HeadLoop {
    /// Copies images `(images, tokens, dim)` to the device. None if `head` has parameters, pools, or is an ablation.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn new(head: HeadConfig, images: &Array, device: TorchDevice) -> Result<Option<Self>> {
        let supported = matches!(
            head,
            HeadConfig::ScanT2i
                | HeadConfig::ScanI2t
                | HeadConfig::ScanAll
                | HeadConfig::MaxMean
                | HeadConfig::Chan { aggregation: ChanAggregation::Mean }
        );
        if !supported {
            return Ok(None);
        }
        let (images, _) = normalise(&Torch::upload(images, &device)?.0)?;
        let slope = to_device(&[LEAKY_SLOPE as f32], &[1], device)?;
        Ok(Some(Self { head, device, images, slope }))
    }

    /// Similarities `(images)` with one caption `(words, dim)`.
    ///
    /// # Errors
    /// Words of another shape, and errors of libtorch.
    pub fn similarities(&self, caption: &Array) -> Result<Torch> {
        let [words, width] = *caption.dims() else {
            return Err(invalid("words (words, width)".to_owned(), format!("shape {:?}", caption.dims())));
        };
        let words = to_device(caption.values(), &[1, words as i64, width as i64], self.device)?;
        let words = normalise(&words)?.0.f_repeat([self.images.size()[0], 1, 1])?;
        let images = &self.images;
        let similarities = match self.head {
            HeadConfig::ScanT2i => self.attended_similarity(&words, images, WORD_TEMPERATURE)?,
            HeadConfig::ScanI2t => self.attended_similarity(images, &words, TOKEN_TEMPERATURE)?,
            HeadConfig::ScanAll => {
                let of_words = self.attended_similarity(&words, images, WORD_TEMPERATURE)?;
                of_words.f_add(&self.attended_similarity(images, &words, TOKEN_TEMPERATURE)?)?.f_mul_scalar(0.5)?
            }
            _ => {
                let cosines = words.f_bmm(&images.f_transpose(1, 2)?)?;
                if self.head == HeadConfig::MaxMean {
                    let cosines = cosines.f_prelu(&self.slope)?;
                    mean_of_maxima(&cosines, 2)?.f_add(&mean_of_maxima(&cosines, 1)?)?.f_mul_scalar(0.5)?
                } else {
                    mean_of_maxima(&cosines, 2)?
                }
            }
        };
        Ok(Torch::new(similarities))
    }

    /// Mean over the queries `(images, queries, dim)` of their cosines with the vectors of `context` `(images, others, dim)`
    /// that they attend to.
    fn attended_similarity(&self, queries: &Tch, context: &Tch, temperature: f64) -> Result<Tch> {
        let cosines = context.f_bmm(&queries.f_transpose(1, 2)?)?.f_prelu(&self.slope)?;
        let squares = cosines.f_pow_tensor_scalar(2)?.f_sum_dim_intlist(&[2i64][..], true, None::<Kind>)?;
        let logits = cosines.f_div(&squares.f_sqrt()?.f_add_scalar(ATTENTION_EPS)?)?;
        let logits = logits.f_transpose(1, 2)?.f_contiguous()?.f_mul_scalar(temperature)?;
        let weights = logits.f_softmax(2, None)?.f_transpose(1, 2)?.f_contiguous()?;
        let attended = context.f_transpose(1, 2)?.f_bmm(&weights)?.f_transpose(1, 2)?;
        let products = normalise(queries)?.0.f_mul(&normalise(&attended)?.0)?;
        let similarities = products.f_sum_dim_intlist(&[2i64][..], false, None::<Kind>)?;
        Ok(similarities.f_mean_dim(&[1i64][..], false, None::<Kind>)?)
    }
}

/// Mean of the maxima over `axis` of `(images, words, tokens)`.
fn mean_of_maxima(cosines: &Tch, axis: i64) -> Result<Tch> {
    let (maxima, _) = cosines.f_max_dim(axis, false)?;
    Ok(maxima.f_mean_dim(&[1i64][..], false, None::<Kind>)?)
}
