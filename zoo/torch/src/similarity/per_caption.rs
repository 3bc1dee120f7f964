//! The alignment by a plain loop over captions: what the exact engines are measured against.
//!
//! The order of work is that of the authors' evaluation: for each caption, all images of a shard; scores, sort, gather,
//! aggregation network, fused patch, normalisation and cosines are done anew for each pair. Their training does the same
//! with a batch in the place of the shard, and records all of it.

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

use super::{TorchDevice, bad, images::Aggregation, leaky, normalise, to_device, to_host};
use crate::{Error, Result};
use laps_align::similarity::{AggregationWeights, AlignmentConfig, ImageSource};
use laps_model::array::Array;

/// The images of a shard, 256 in the authors' evaluation.
pub struct PerCaption {
    aggregation: Aggregation,
    device: TorchDevice,
    shard: Shard,
}

impl PerCaption {
    /// Brings the shard to the device.
    pub fn new(
        config: AlignmentConfig,
        weights: &AggregationWeights,
        device: TorchDevice,
        source: &dyn ImageSource,
        images: Range<usize>,
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        config.check()?;
        if source.shape() != [config.tokens(), config.width] {
            let expected = format!("images of shape {:?}", [config.tokens(), config.width]);
            return Err(bad(expected, format!("{:?}", source.shape())));
        }
        let aggregation = Aggregation::new(weights, &config, device)?;
        let mut values = vec![0.0; images.len() * config.tokens() * config.width];
        for (image, to) in images.clone().zip(values.chunks_exact_mut(config.tokens() * config.width)) {
            source.read(image, to)?;
        }
        let shape = [images.len() as i64, config.tokens() as i64, config.width as i64];
        let shard = Shard::new(config, &to_device(&values, &shape, device)?)?;
        Ok(Self { aggregation, device, shard })
    }

    /// Similarities `(captions, images)` of captions, each `(words, width)`.
    pub fn similarities(&self, captions: &[Array]) -> Result<Array> {
        let _guard = tch::no_grad_guard();
        let images = self.shard.images();
        let mut rows = Vec::with_capacity(captions.len() * images);
        for caption in captions {
            let [words, width] = *caption.dims() else {
                return Err(bad("words (words, width)".to_owned(), format!("shape {:?}", caption.dims())));
            };
            let words = to_device(caption.values(), &[1, words as i64, width as i64], self.device)?;
            rows.extend(to_host(&self.shard.similarities(&words, |patches| self.aggregation.logits(patches))?)?);
        }
        Ok(Array::new(&[captions.len(), images], rows)?)
    }
}

/// Images that captions are compared with one after another.
pub(crate) struct Shard {
    config: AlignmentConfig,
    class_token: Option<Tch>,
    patches: Tch,
    normalised: Tch,
}

impl Shard {
    /// Tokens `(images, tokens, width)`, the class token first where there is one. They may carry a history.
    pub(crate) fn new(config: AlignmentConfig, tokens: &Tch) -> Result<Self> {
        let first = i64::from(config.has_class_token);
        let patches = tokens.f_narrow(1, first, config.patches as i64)?;
        let class_token = if config.has_class_token { Some(tokens.f_narrow(1, 0, 1)?) } else { None };
        let (normalised, _) = tch::no_grad(|| normalise(&patches))?;
        Ok(Self { config, class_token, patches, normalised })
    }

    fn images(&self) -> usize {
        self.patches.size()[0] as usize
    }

    /// One caption `(1, words, width)`, whose words are copied for each image, to `(images)`. `logits` is the aggregation
    /// network, `(images, kept, width)` to `(images, kept, groups)`.
    pub(crate) fn similarities(&self, words: &Tch, logits: impl Fn(&Tch) -> Result<Tch>) -> Result<Tch> {
        let Self { config, class_token, patches, normalised } = self;
        let width = config.width as i64;
        let words = words.f_expand([self.images() as i64, -1, -1], false)?;
        let with_mean = |tensor: &Tch| -> Result<Tch> {
            let (mean, _) = normalise(&tensor.f_mean_dim(&[1i64][..], true, None::<Kind>)?)?;
            Ok(normalised.f_mul(&mean)?.f_sum_dim_intlist(&[-1i64][..], false, None)?)
        };
        let scores = tch::no_grad(|| Ok::<_, Error>(with_mean(patches)?.f_add(&with_mean(&words)?)?))?;
        let (scores, order) = scores.f_sort(1, true)?;
        let [kept, dropped] = [config.kept as i64, (config.patches - config.kept) as i64];
        let gather = |first: i64, count: i64| -> Result<Tch> {
            let order = order.f_narrow(1, first, count)?.f_unsqueeze(-1)?.f_expand([-1, -1, width], false)?;
            Ok(patches.f_gather(1, &order, false)?)
        };
        let fused = scores.f_narrow(1, kept, dropped)?.f_softmax(1, None)?.f_unsqueeze(-1)?;
        let fused = gather(kept, dropped)?.f_mul(&fused)?.f_sum_dim_intlist(&[1i64][..], true, None)?;
        let kept = gather(0, kept)?;
        let groups = logits(&kept)?.f_transpose(1, 2)?.f_softmax(2, None)?.f_bmm(&kept)?;
        let mut tokens: Vec<&Tch> = class_token.iter().collect();
        tokens.extend([&groups, &fused]);
        let (tokens, _) = normalise(&Tch::f_cat(&tokens, 1)?)?;
        let (words, _) = normalise(&words)?;
        let cosines = leaky(&tokens.f_bmm(&words.f_transpose(1, 2)?)?)?;
        let largest = |axis: i64| -> Result<Tch> {
            let (largest, _) = cosines.f_max_dim(axis, false)?;
            Ok(largest.f_mean_dim(&[-1i64][..], false, None)?)
        };
        Ok(largest(1)?.f_add(&largest(2)?)?)
    }
}
