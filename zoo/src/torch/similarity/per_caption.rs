//! The alignment by a plain loop over captions: what the exact engines are measured against.
//!
//! The order of work is that of the authors' evaluation: for each caption, all images of a shard; scores, sort, gather,
//! aggregation network, fused patch, normalisation and cosines are done anew for each pair.

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

use super::{TorchDevice, bad, images::Aggregation, leaky, normalise, to_device, to_host};
use crate::{
    Result,
    array::Array,
    retrieval::similarity::{AggregationWeights, AlignmentConfig, ImageSource},
};

/// The images of a shard, 256 in the authors' evaluation.
pub struct PerCaption {
    config: AlignmentConfig,
    aggregation: Aggregation,
    device: TorchDevice,
    tokens: Tch,
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
        Ok(Self { config, aggregation, device, tokens: to_device(&values, &shape, device)? })
    }

    /// Similarities `(captions, images)` of captions, each `(words, width)`.
    pub fn similarities(&self, captions: &[Array]) -> Result<Array> {
        let _guard = tch::no_grad_guard();
        let images = self.tokens.size()[0] as usize;
        let first = i64::from(self.config.has_class_token);
        let patches = self.tokens.f_narrow(1, first, self.config.patches as i64)?;
        let class_token = if self.config.has_class_token { Some(self.tokens.f_narrow(1, 0, 1)?) } else { None };
        let (normalised, _) = normalise(&patches)?;
        let mut rows = Vec::with_capacity(captions.len() * images);
        for caption in captions {
            let [words, width] = *caption.dims() else {
                return Err(bad("words (words, width)".to_owned(), format!("shape {:?}", caption.dims())));
            };
            let words = to_device(caption.values(), &[1, words as i64, width as i64], self.device)?;
            let words = words.f_expand([images as i64, -1, -1], false)?;
            rows.extend(to_host(&self.caption(class_token.as_ref(), &patches, &normalised, &words)?)?);
        }
        Array::new(&[captions.len(), images], rows)
    }

    /// Images with a caption, which is given once for each of them: `(images, words, width)` to `(images)`.
    fn caption(&self, class_token: Option<&Tch>, patches: &Tch, normalised: &Tch, words: &Tch) -> Result<Tch> {
        let width = self.config.width as i64;
        let with_mean = |tensor: &Tch| -> Result<Tch> {
            let (mean, _) = normalise(&tensor.f_mean_dim(&[1i64][..], true, None::<Kind>)?)?;
            Ok(normalised.f_mul(&mean)?.f_sum_dim_intlist(&[-1i64][..], false, None)?)
        };
        let scores = with_mean(patches)?.f_add(&with_mean(words)?)?;
        let (scores, order) = scores.f_sort(1, true)?;
        let [kept, dropped] = [self.config.kept as i64, (self.config.patches - self.config.kept) as i64];
        let gather = |first: i64, count: i64| -> Result<Tch> {
            let order = order.f_narrow(1, first, count)?.f_unsqueeze(-1)?.f_expand([-1, -1, width], false)?;
            Ok(patches.f_gather(1, &order, false)?)
        };
        let fused = scores.f_narrow(1, kept, dropped)?.f_softmax(1, None)?.f_unsqueeze(-1)?;
        let fused = gather(kept, dropped)?.f_mul(&fused)?.f_sum_dim_intlist(&[1i64][..], true, None)?;
        let kept = gather(0, kept)?;
        let groups = self.aggregation.logits(&kept)?.f_transpose(1, 2)?.f_softmax(2, None)?.f_bmm(&kept)?;
        let mut tokens: Vec<&Tch> = class_token.into_iter().collect();
        tokens.extend([&groups, &fused]);
        let (tokens, _) = normalise(&Tch::f_cat(&tokens, 1)?)?;
        let (words, _) = normalise(words)?;
        let cosines = leaky(&tokens.f_bmm(&words.f_transpose(1, 2)?)?)?;
        let mean = |axis: i64| cosines.f_amax([axis], false)?.f_mean_dim(&[-1i64][..], false, None);
        Ok(mean(1)?.f_add(&mean(2)?)?)
    }
}
