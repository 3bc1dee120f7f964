//! The alignment as a plain loop over captions, the baseline of the exact engines.
//!
//! It follows the authors' evaluation: for each caption, all images of a shard. Scores, sort, gather, aggregation network,
//! fused patch, normalisation and cosines are computed again for each pair. The authors' training does the same with a
//! batch instead of a shard, and records all of it.

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

use crate::{
    Error, Result, Torch, TorchDevice,
    similarity::{aggregation, invalid, leaky_relu, normalise, to_device, to_host},
};
use laps_align::similarity::{AggregationWeights, AlignmentConfig, ImageSource};
use laps_model::{array::Array, models::alignment::Aggregation};

/// Compares captions with the images of a shard. The authors' evaluation uses shards of 256 images.
pub struct PerCaption {
    aggregation: Aggregation<Torch>,
    device: TorchDevice,
    shard: ImageShard,
}

impl PerCaption {
    /// Copies the shard to the device.
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
            return Err(invalid(expected, format!("{:?}", source.shape())));
        }
        let aggregation = aggregation(weights, &config, device)?;
        let mut values = vec![0.0; images.len() * config.tokens() * config.width];
        for (image, to) in images.clone().zip(values.chunks_exact_mut(config.tokens() * config.width)) {
            source.read(image, to)?;
        }
        let shape = [images.len() as i64, config.tokens() as i64, config.width as i64];
        let shard = ImageShard::new(config, &to_device(&values, &shape, device)?)?;
        Ok(Self { aggregation, device, shard })
    }

    /// Similarities `(captions, images)` of captions, each `(words, dim)`.
    pub fn similarities(&self, captions: &[Array]) -> Result<Array> {
        let _guard = tch::no_grad_guard();
        let images = self.shard.images();
        let logits = |kept: &Tch| -> Result<Tch> {
            Ok(self.aggregation.forward(&Torch::new(kept.shallow_clone()))?.0.shallow_clone())
        };
        let mut rows = Vec::with_capacity(captions.len() * images);
        for caption in captions {
            let [words, width] = *caption.dims() else {
                return Err(invalid("words (words, width)".to_owned(), format!("shape {:?}", caption.dims())));
            };
            let words = to_device(caption.values(), &[1, words as i64, width as i64], self.device)?;
            rows.extend(to_host(&self.shard.similarities(&words, logits)?)?);
        }
        Ok(Array::new(&[captions.len(), images], rows)?)
    }
}

/// Images that are compared with one caption after another.
pub(super) struct ImageShard {
    config: AlignmentConfig,
    class_token: Option<Tch>,
    patches: Tch,
    unit_patches: Tch,
}

impl ImageShard {
    /// Tokens `(images, tokens, dim)`, the class token first if there is one. Gradients are recorded if the tokens need
    /// them.
    pub(super) fn new(config: AlignmentConfig, tokens: &Tch) -> Result<Self> {
        let first = i64::from(config.has_class_token);
        let patches = tokens.f_narrow(1, first, config.patches as i64)?;
        let class_token = if config.has_class_token { Some(tokens.f_narrow(1, 0, 1)?) } else { None };
        let (unit_patches, _) = tch::no_grad(|| normalise(&patches))?;
        Ok(Self { config, class_token, patches, unit_patches })
    }

    fn images(&self) -> usize {
        self.patches.size()[0] as usize
    }

    /// Similarities `(images)` with one caption `(1, words, dim)`, whose words are copied for each image. `logits` is the
    /// aggregation network, `(images, kept, dim)` to `(images, kept, groups)`.
    pub(super) fn similarities(&self, words: &Tch, logits: impl Fn(&Tch) -> Result<Tch>) -> Result<Tch> {
        let Self { config, class_token, patches, unit_patches } = self;
        let width = config.width as i64;
        let words = words.f_expand([self.images() as i64, -1, -1], false)?;
        let cosine_with_mean = |tensor: &Tch| -> Result<Tch> {
            let (mean, _) = normalise(&tensor.f_mean_dim(&[1i64][..], true, None::<Kind>)?)?;
            Ok(unit_patches.f_mul(&mean)?.f_sum_dim_intlist(&[-1i64][..], false, None)?)
        };
        let scores = tch::no_grad(|| Ok::<_, Error>(cosine_with_mean(patches)?.f_add(&cosine_with_mean(&words)?)?))?;
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
        let cosines = leaky_relu(&tokens.f_bmm(&words.f_transpose(1, 2)?)?)?;
        let mean_of_maxima = |axis: i64| -> Result<Tch> {
            let (maxima, _) = cosines.f_max_dim(axis, false)?;
            Ok(maxima.f_mean_dim(&[-1i64][..], false, None)?)
        };
        Ok(mean_of_maxima(1)?.f_add(&mean_of_maxima(2)?)?)
    }
}
