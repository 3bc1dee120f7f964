//! The heads without parameters that compare tokens with words, as a plain loop over captions: the baseline of their engine.
//!
//! It follows the originals' evaluation. The images of a shard are normalised once. For each caption, its words are repeated
//! for every image and compared in a batched product, and the vectors that a word or token attends to are formed at full
//! width. CHAN has no such loop: it pads all captions of a data set to the longest, multiplies all tokens of a shard with all
//! words, and masks the padding. [`Head::compare`](laps_model::heads::Head::compare) computes the same with less work.

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

/// Images and captions of a shard in the LAPS authors' evaluation, and in CHAN's.
const SHARD: usize = 256;
const CHAN_SHARD: usize = 128;
/// Number of words that CHAN's evaluation pads captions to: that of the longest of 7,425 captions of Flickr30K, whose lengths
/// laps-bench counts.
const CHAN_WORDS: i64 = 39;
/// The cosine of a padded word in CHAN.
const PADDING: f64 = -1.0;
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
    /// Number of images and of captions in a shard of the evaluation of `head`'s original. None if `head` has parameters, pools,
    /// or is an ablation.
    pub fn shard(head: &HeadConfig) -> Option<usize> {
        match head {
            HeadConfig::ScanT2i | HeadConfig::ScanI2t | HeadConfig::ScanAll | HeadConfig::MaxMean => Some(SHARD),
            HeadConfig::Chan { aggregation: ChanAggregation::Mean } => Some(CHAN_SHARD),
            _ => None,
        }
    }

    /// Copies images `(images, tokens, dim)` to the device. None if `head` has no [`shard`](Self::shard).
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn new(head: HeadConfig, images: &Array, device: TorchDevice) -> Result<Option<Self>> {
        if Self::shard(&head).is_none() {
            return Ok(None);
        }
        let (images, _) = normalise(&Torch::upload(images, &device)?.0)?;
        let slope = to_device(&[LEAKY_SLOPE as f32], &[1], device)?;
        Ok(Some(Self { head, device, images, slope }))
    }

    /// Similarities `(images, captions)` with captions of shape `(words, dim)`.
    ///
    /// # Errors
    /// Words of another shape, and errors of libtorch.
    pub fn similarities(&self, captions: &[Array]) -> Result<Torch> {
        let words = captions.iter().map(|caption| {
            let [words, width] = *caption.dims() else {
                return Err(invalid("words (words, width)".to_owned(), format!("shape {:?}", caption.dims())));
            };
            let words = to_device(caption.values(), &[words as i64, width as i64], self.device)?;
            Ok(normalise(&words)?.0)
        });
        let words = words.collect::<Result<Vec<_>>>()?;
        if matches!(self.head, HeadConfig::Chan { .. }) {
            return Ok(Torch::new(self.masked_similarities(&words)?));
        }
        let columns = words.iter().map(|words| self.column(words)).collect::<Result<Vec<_>>>()?;
        Ok(Torch::new(Tch::f_stack(&columns, 1)?))
    }

    /// Similarities `(images)` with one caption of normalised words `(words, dim)`.
    fn column(&self, words: &Tch) -> Result<Tch> {
        let words = words.f_unsqueeze(0)?.f_repeat([self.images.size()[0], 1, 1])?;
        let images = &self.images;
        match self.head {
            HeadConfig::ScanT2i => self.attended_similarity(&words, images, WORD_TEMPERATURE),
            HeadConfig::ScanI2t => self.attended_similarity(images, &words, TOKEN_TEMPERATURE),
            HeadConfig::ScanAll => {
                let of_words = self.attended_similarity(&words, images, WORD_TEMPERATURE)?;
                let of_tokens = self.attended_similarity(images, &words, TOKEN_TEMPERATURE)?;
                Ok(of_words.f_add(&of_tokens)?.f_mul_scalar(0.5)?)
            }
            _ => {
                let cosines = words.f_bmm(&images.f_transpose(1, 2)?)?.f_prelu(&self.slope)?;
                Ok(mean_of_maxima(&cosines, 2)?.f_add(&mean_of_maxima(&cosines, 1)?)?.f_mul_scalar(0.5)?)
            }
        }
    }

    /// Means of the largest cosines of each word, `(images, captions)`: one product of all tokens and words, and a mask of
    /// its size.
    fn masked_similarities(&self, captions: &[Tch]) -> Result<Tch> {
        let [images, tokens, width] = *self.images.size() else {
            return Err(invalid(
                "images (images, tokens, width)".to_owned(),
                format!("shape {:?}", self.images.size()),
            ));
        };
        let words = Tch::f_pad_sequence(captions, true, 0.0, "right")?;
        let [captions_count, longest] = [words.size()[0], words.size()[1]];
        let padded = CHAN_WORDS.max(longest);
        let words = words.f_constant_pad_nd([0, 0, 0, padded - longest])?;
        let lengths: Vec<i64> = captions.iter().map(|words| words.size()[0]).collect();
        let lengths = Tch::f_from_slice(&lengths)?.f_to_device(self.device.device())?.f_unsqueeze(1)?;
        let positions = Tch::f_arange(longest, (Kind::Int64, self.device.device()))?;
        let is_word = positions.f_lt_tensor(&lengths)?.f_to_kind(Kind::Float)?.f_reshape([1, -1])?;
        let is_token = Tch::f_ones([images * tokens, 1], (Kind::Float, self.device.device()))?;
        let by_pair = |products: Tch, words: i64| {
            products.f_reshape([images, tokens, captions_count, words])?.f_permute([0, 2, 1, 3])
        };
        let cosines =
            self.images.f_reshape([-1, width])?.f_matmul(&words.f_reshape([-1, width])?.f_transpose(0, 1)?)?;
        let mask = by_pair(is_token.f_matmul(&is_word)?, longest)?;
        let cosines = by_pair(cosines, padded)?.f_narrow(3, 0, longest)?.f_masked_fill(&mask.f_eq(0.0)?, PADDING)?;
        let (best, _) = cosines.f_max_dim(-2, false)?;
        let is_word = best.f_ne(PADDING)?;
        let sum = best.f_masked_fill(&is_word.f_logical_not()?, 0.0)?.f_sum_dim_intlist(&[-1i64][..], false, None)?;
        Ok(sum.f_div(&is_word.f_sum_dim_intlist(&[-1i64][..], false, None)?)?)
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
