//! Images on the device, with everything that does not depend on the caption.

use std::ops::Range;

use tch::Tensor as Tch;

use super::{TorchDevice, invalid, normalise, to_device, to_host};
use crate::Result;
use laps_align::similarity::{AggregationWeights, AlignmentConfig, ImageSource};
use laps_model::array::Array;

/// The aggregation network: the logit of a patch in each group.
pub(crate) struct Aggregation {
    norm: [Tch; 2],
    hidden: [Tch; 2],
    output: [Tch; 2],
    scale: f64,
}

impl Aggregation {
    pub(crate) fn new(weights: &AggregationWeights, config: &AlignmentConfig, device: TorchDevice) -> Result<Self> {
        let [width, hidden, groups] = [config.width, weights.hidden_bias.values().len(), config.groups];
        let parameter = |name: &str, array: &Array, shape: &[usize]| {
            let name = format!("cross_net.aggr_net.{name}");
            if array.dims() != shape || shape.contains(&0) {
                let [expected, found] = [shape, array.dims()].map(|shape| format!("shape {shape:?}"));
                return Err(laps_model::Error::Parameter { name, expected, found }.into());
            }
            if let Some(value) = array.values().iter().find(|value| !value.is_finite()) {
                return Err(laps_model::Error::Parameter {
                    name,
                    expected: "finite values".to_owned(),
                    found: value.to_string(),
                }
                .into());
            }
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            to_device(array.values(), &shape, device)
        };
        let scale = Array::new(&[weights.scale.values().len()], weights.scale.values().to_vec())?;
        Ok(Self {
            norm: [
                parameter("weight.0.weight", &weights.norm_weight, &[width])?,
                parameter("weight.0.bias", &weights.norm_bias, &[width])?,
            ],
            hidden: [
                parameter("weight.1.weight", &weights.hidden_weight, &[hidden, width])?,
                parameter("weight.1.bias", &weights.hidden_bias, &[hidden])?,
            ],
            output: [
                parameter("weight.3.weight", &weights.group_weight, &[groups, hidden])?,
                parameter("weight.3.bias", &weights.group_bias, &[groups])?,
            ],
            scale: f64::from(to_host(&parameter("scale", &scale, &[1])?)?[0]),
        })
    }

    /// `(..., dim)` to `(..., groups)`.
    pub(crate) fn logits(&self, patches: &Tch) -> Result<Tch> {
        let [weight, bias] = &self.norm;
        let normed = patches.f_layer_norm(weight.size(), Some(weight), Some(bias), 1e-5, true)?;
        let hidden = normed.f_linear(&self.hidden[0], Some(&self.hidden[1]))?.f_gelu("none")?;
        Ok(hidden.f_linear(&self.output[0], Some(&self.output[1]))?.f_mul_scalar(self.scale)?)
    }
}

/// Some images, prepared for the comparison with captions.
pub struct DeviceImages {
    range: Range<usize>,
    /// Normalised tokens, the class token first if there is one, `(images, tokens, width)`.
    pub(super) tokens: Tch,
    /// Cosine of each patch with the mean patch, `(images, patches, 1)`.
    pub(super) scores: Tch,
    /// Norm of each patch, relative to the image's largest, `(images, patches, 1)`.
    pub(super) norms: Tch,
    /// Logits of the aggregation, `(images, patches, groups)`.
    pub(super) logits: Tch,
    /// `exp(logit - largest of the group)` times the patch's norm, `(images, patches, groups)`.
    pub(super) factors: Tch,
    /// Products of the normalised patches, `(images, patches, patches)`.
    pub(super) gram: Tch,
    /// `factor of l * factor of l' * product of both`, `(images, patches l, groups * patches l')`.
    pub(super) quadratic: Tch,
}

impl DeviceImages {
    /// The images' range in their source.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub(super) fn new(
        source: &dyn ImageSource,
        range: Range<usize>,
        config: &AlignmentConfig,
        aggregation: &Aggregation,
        device: TorchDevice,
    ) -> Result<Self> {
        let mut values = vec![0.0; range.len() * config.tokens() * config.width];
        for (image, to) in range.clone().zip(values.chunks_exact_mut(config.tokens() * config.width)) {
            source.read(image, to)?;
        }
        let [count, patches, groups] = [range.len(), config.patches, config.groups].map(|size| size as i64);
        let tokens = to_device(&values, &[count, config.tokens() as i64, config.width as i64], device)?;
        drop(values);
        let first = i64::from(config.has_class_token);
        let raw = tokens.f_narrow(1, first, patches)?;
        let (normalised, norms) = normalise(&tokens)?;
        if let Some(token) = to_host(&norms)?.iter().position(|norm| !norm.is_finite()) {
            let image = range.start + token / config.tokens();
            return Err(invalid("finite embeddings".to_owned(), format!("a non-finite token of image {image}")));
        }
        let norms = norms.f_narrow(1, first, patches)?;
        let norms = norms.f_div(&norms.f_amax([1i64], true)?)?;
        let unit_patches = normalised.f_narrow(1, first, patches)?.f_contiguous()?;
        let (mean, _) = normalise(&raw.f_mean_dim(&[1i64][..], true, None)?)?;
        let scores = unit_patches.f_bmm(&mean.f_transpose(1, 2)?)?;
        let logits = aggregation.logits(&raw)?;
        let mut factors = logits.f_sub(&logits.f_amax([1i64], true)?)?;
        let factors = factors.f_exp_()?.f_mul_(&norms)?;
        let gram = unit_patches.f_bmm(&unit_patches.f_transpose(1, 2)?)?;
        let mut quadratic = factors.f_unsqueeze(3)?.f_mul(&factors.f_transpose(1, 2)?.f_unsqueeze(1)?)?;
        let quadratic = quadratic.f_mul_(&gram.f_unsqueeze(2)?)?.f_reshape([count, patches, groups * patches])?;
        Ok(Self { range, tokens: normalised, scores, norms, logits, factors, gram, quadratic })
    }

    /// Bytes of an image during preparation, which needs more than the result.
    pub(super) fn bytes(config: &AlignmentConfig) -> usize {
        let AlignmentConfig { patches, groups, width, .. } = *config;
        4 * (5 * config.tokens() * width + 2 * groups * patches * patches + patches * patches + 6 * patches * groups)
    }
}
