//! A training step of a head other than LAPS's alone: from embeddings to the loss, and back to their gradients.

use tch::Tensor as Tch;

use super::alignment_step::missing;
use crate::{
    Error, Result, Torch, TorchDevice,
    error::model_error,
    train::{BatchEmbeddings, HingeLoss, Objective},
};
use laps_align::similarity::AlignmentConfig;
use laps_model::{
    array::Array,
    heads::{Head, HeadConfig, HeadSizes},
    models::alignment::PairSimilarity,
    params::{self, Mode, ParamPath, Parameter, Regularization},
    params_init::init_parameters,
    tensor::DeviceTensor,
};

/// Embeddings of a batch and a newly initialised head. All of them are leaf tensors with gradients.
pub struct HeadStep {
    objective: Objective,
    images: Tch,
    words: Tch,
    lengths: Vec<usize>,
}

impl HeadStep {
    /// Images `(pairs, tokens, dim)` of the sizes `config`, and as many captions `(words, dim)`; every pair has its own
    /// image. `seed` initialises the parameters of the head. Only an ablation of LAPS reads `kept` and `groups`.
    ///
    /// # Errors
    /// Sizes that the head cannot have.
    pub fn new(
        head: HeadConfig,
        config: AlignmentConfig,
        images: &Array,
        captions: &[Array],
        seed: u64,
        device: TorchDevice,
    ) -> Result<Self> {
        let leaf = |array: &Array| Ok::<Tch, Error>(Torch::upload(array, &device)?.0.f_set_requires_grad(true)?);
        let parameters = params::list(|path| build_head(&head, &config, path))?;
        let weight = |parameter: &Parameter| -> laps_model::Result<Torch> {
            let initial = init_parameters(std::slice::from_ref(parameter), seed)?.swap_remove(0).1;
            let trains = !parameter.is_running_statistic();
            let weight = Torch::upload(&initial, &device)?.0.f_set_requires_grad(trains).map_err(model_error)?;
            Ok(Torch::new(weight))
        };
        // With the dropout of the head's original.
        let mode = Mode::Training(Regularization { dropout: 0.0, drop_path: 0.0, head_dropout: None });
        let objective =
            Objective::of_head(config, mode, &head, parameters, weight, |path| build_head(&head, &config, path))?;
        let lengths: Vec<usize> = captions.iter().map(|caption| caption.dims()[0]).collect();
        let values = captions.iter().flat_map(Array::values).copied().collect();
        let words = Array::new(&[lengths.iter().sum(), config.width], values)?;
        Ok(Self { objective, images: leaf(images)?, words: leaf(&words)?, lengths })
    }

    /// Computes the loss and adds its gradients to those of the leaf tensors.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward_backward(&mut self, hinge: &HingeLoss) -> Result<f64> {
        let [images, words] = [&self.images, &self.words].map(Tch::shallow_clone);
        let embeddings = BatchEmbeddings::of_head(images, words, self.lengths.clone());
        let all = BatchEmbeddings::gather(std::slice::from_ref(&embeddings), |name| Err(missing(name)))?;
        let image_ids: Vec<u64> = (0..self.lengths.len() as u64).collect();
        let value = self.objective.differentiate(&all, &image_ids, 0..image_ids.len(), hinge)?;
        if let Some(gradient) = value.gradient {
            gradient.propagate(&embeddings, 1.0)?;
        }
        Ok(value.loss)
    }
}

/// A head other than LAPS's for embeddings of the sizes `config`. Only an ablation of LAPS reads `kept` and `groups`.
///
/// # Errors
/// Parameters that cannot be loaded.
pub fn build_head<T>(head: &HeadConfig, config: &AlignmentConfig, path: &ParamPath<T>) -> laps_model::Result<Head<T>> {
    let AlignmentConfig { patches, has_class_token, kept, groups, width } = *config;
    match *head {
        HeadConfig::LapsAblation { ablation } => {
            Head::ablation(ablation, PairSimilarity { patches, kept, has_class_token }, groups, width, path)
        }
        _ => {
            let sizes = HeadSizes { tokens: config.tokens(), has_class_token, width, word_width: width };
            Head::new(head, &sizes, path)
        }
    }
}

#[cfg(test)]
mod tests {
    use laps_model::{
        encoder::Device,
        heads::{Ablation, ChanAggregation, D2sVseConfig, Pooling},
        random::SplitMix64,
    };

    use super::*;
    use crate::train::Negatives;

    /// Every head has a finite loss, and gradients of images and words that are finite and not all 0.
    #[test]
    fn step_of_every_head_has_gradients_of_its_embeddings() {
        let config = AlignmentConfig { patches: 9, has_class_token: true, kept: 5, groups: 2, width: 16 };
        let normal = |name: &str, shape: &[usize]| {
            let mut random = SplitMix64::named(5, name);
            Array::new(shape, (0..shape.iter().product()).map(|_| random.normal() as f32).collect()).unwrap()
        };
        let images = normal("images", &[4, config.tokens(), config.width]);
        let captions = [3, 5, 2, 4].map(|length| normal(&format!("{length} words"), &[length, config.width]));
        let d2s_vse = D2sVseConfig { embed_size: 16, mlp_size: 8, prompt_tokens: 2, blocks: 1, heads: 2 };
        let heads = [
            HeadConfig::Cosine { embed_size: 16 },
            HeadConfig::Vsepp { pooling: Pooling::Mean },
            HeadConfig::Vsepp { pooling: Pooling::Gpo },
            HeadConfig::ScanAll,
            HeadConfig::MaxMean,
            HeadConfig::Sgr { sim_dim: 8, steps: 2 },
            HeadConfig::Chan { aggregation: ChanAggregation::Mean },
            HeadConfig::D2sVse(d2s_vse),
        ];
        let ablations = Ablation::ALL.map(|ablation| HeadConfig::LapsAblation { ablation });
        let hinge = HingeLoss { margin: 0.2, negatives: Negatives::All, weight: 1.0 };
        for head in heads.into_iter().chain(ablations) {
            let device = TorchDevice::open(Device::Cpu).unwrap();
            let mut step = HeadStep::new(head, config, &images, &captions, 3, device).unwrap();
            let loss = step.forward_backward(&hinge).unwrap();
            assert!(loss.is_finite() && loss > 0.0, "{head}: {loss}");
            for leaf in [&step.images, &step.words] {
                let largest = leaf.grad().abs().max().double_value(&[]);
                assert!(largest.is_finite() && largest > 0.0, "{head}: {largest}");
            }
        }
    }
}
