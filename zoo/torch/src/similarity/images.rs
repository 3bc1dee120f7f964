//! Images on the device, with everything that does not depend on the caption.

use std::{ops::Range, rc::Rc};

use tch::Tensor as Tch;

use super::{TorchDevice, invalid, normalise, to_device, to_host};
use crate::{Result, Torch};
use laps_align::similarity::{AggregationWeights, AlignmentConfig, ImageSource};
use laps_model::{
    array::Array,
    models::alignment::Aggregation,
    params::{ParamPath, Parameter},
    tensor::DeviceTensor,
};

/// The aggregation network of laps-model with `weights` on a device.
///
/// # Errors
/// Weights that do not fit `config` or are not finite.
pub(crate) fn aggregation(
    weights: &AggregationWeights,
    config: &AlignmentConfig,
    device: TorchDevice,
) -> Result<Aggregation<Torch>> {
    let hidden = weights.hidden_bias.values().len();
    let weights = weights.clone();
    let path = ParamPath::root(Rc::new(move |parameter: Parameter| {
        let Parameter { name, shape, .. } = parameter;
        let invalid = |name, expected, found| Err(laps_model::Error::Parameter { name, expected, found });
        let Some(array) = weights.parameter(&name) else {
            return invalid(name, "a weight".to_owned(), "none".to_owned());
        };
        // Checkpoints may store the scale in another shape.
        let fits = array.dims() == shape || (name.ends_with(".scale") && array.values().len() == 1);
        if !fits || shape.contains(&0) {
            return invalid(name, format!("shape {shape:?}"), format!("shape {:?}", array.dims()));
        }
        if let Some(value) = array.values().iter().find(|value| !value.is_finite()) {
            return invalid(name, "finite values".to_owned(), value.to_string());
        }
        Torch::upload(&Array::new(&shape, array.values().to_vec())?, &device)
    }));
    Ok(Aggregation::new(config.width, hidden, config.groups, &path.sub("cross_net").sub("aggr_net"))?)
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

    /// Reads images of `source`.
    ///
    /// # Errors
    /// Images that are not finite, and errors of `source`.
    pub(super) fn read(
        source: &dyn ImageSource,
        range: Range<usize>,
        config: &AlignmentConfig,
        aggregation: &Aggregation<Torch>,
        device: TorchDevice,
    ) -> Result<Self> {
        let mut values = vec![0.0; range.len() * config.tokens() * config.width];
        for (image, to) in range.clone().zip(values.chunks_exact_mut(config.tokens() * config.width)) {
            source.read(image, to)?;
        }
        let shape = [range.len(), config.tokens(), config.width].map(|size| size as i64);
        let tokens = to_device(&values, &shape, device)?;
        drop(values);
        let (_, norms) = normalise(&tokens)?;
        if let Some(token) = to_host(&norms)?.iter().position(|norm| !norm.is_finite()) {
            let image = range.start + token / config.tokens();
            return Err(invalid("finite embeddings".to_owned(), format!("a non-finite token of image {image}")));
        }
        let logits = aggregation.forward(&Torch::new(patches(config, &tokens)?))?;
        Self::new(range, &tokens, logits.0.shallow_clone(), config)
    }

    /// Prepares tokens `(images, tokens, width)`, the class token first if there is one, and logits of the aggregation
    /// network `(images, patches, groups)`. `range` is the range of the images in their source.
    pub(super) fn new(range: Range<usize>, tokens: &Tch, logits: Tch, config: &AlignmentConfig) -> Result<Self> {
        let [count, patch_count, groups] = [range.len(), config.patches, config.groups].map(|size| size as i64);
        let raw = patches(config, tokens)?;
        let (normalised, norms) = normalise(tokens)?;
        let norms = patches(config, &norms)?;
        let norms = norms.f_div(&norms.f_amax([1i64], true)?)?;
        let unit_patches = patches(config, &normalised)?.f_contiguous()?;
        let (mean, _) = normalise(&raw.f_mean_dim(&[1i64][..], true, None)?)?;
        let scores = unit_patches.f_bmm(&mean.f_transpose(1, 2)?)?;
        let mut factors = logits.f_sub(&logits.f_amax([1i64], true)?)?;
        let factors = factors.f_exp_()?.f_mul_(&norms)?;
        let gram = unit_patches.f_bmm(&unit_patches.f_transpose(1, 2)?)?;
        let mut quadratic = factors.f_unsqueeze(3)?.f_mul(&factors.f_transpose(1, 2)?.f_unsqueeze(1)?)?;
        let quadratic =
            quadratic.f_mul_(&gram.f_unsqueeze(2)?)?.f_reshape([count, patch_count, groups * patch_count])?;
        Ok(Self { range, tokens: normalised, scores, norms, logits, factors, gram, quadratic })
    }

    /// Bytes of an image during preparation, which needs more than the result.
    pub(super) fn bytes(config: &AlignmentConfig) -> usize {
        let AlignmentConfig { patches, groups, width, .. } = *config;
        4 * (5 * config.tokens() * width + 2 * groups * patches * patches + patches * patches + 6 * patches * groups)
    }
}

/// The patches of a tensor `(images, tokens, ...)`.
pub(super) fn patches(config: &AlignmentConfig, tensor: &Tch) -> Result<Tch> {
    Ok(tensor.f_narrow(1, i64::from(config.has_class_token), config.patches as i64)?)
}
