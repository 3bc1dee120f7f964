//! The alignment part of a training step alone: from embeddings to the loss, and back to their gradients.

use std::{cell::RefCell, rc::Rc};

use tch::Tensor as Tch;

use super::ImageShard;
use crate::{
    Error, Result, Torch, TorchDevice,
    train::{BatchEmbeddings, HingeLoss, Objective, alignment_inputs, download},
};
use laps_align::similarity::AlignmentConfig;
use laps_model::{
    array::Array,
    models::{alignment::Alignment, config::ModelConfig},
    params::{ParamPath, Parameter},
    params_init::init_parameters,
    tensor::DeviceTensor,
};

/// How the alignment of a batch is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignmentMethod {
    /// As training computes it.
    Vectorised,
    /// In the authors' order of work: one caption after another with all images of the batch, everything recorded, and one
    /// backward pass at the end.
    PerCaption,
}

/// Embeddings of a batch and a newly initialised alignment. All of them are leaf tensors with gradients.
pub struct AlignmentStep {
    config: AlignmentConfig,
    alignment: Alignment<Torch>,
    objective: RefCell<Objective>,
    parameters: Vec<(String, Torch)>,
    images: Tch,
    words: Tch,
    lengths: Vec<usize>,
    image_ids: Vec<u64>,
}

impl AlignmentStep {
    /// Images `(pairs, tokens, dim)` and as many captions `(words, dim)`; every pair has its own image. `seed` initialises
    /// the weights of the alignment.
    pub fn new(
        model: &ModelConfig,
        images: &Array,
        captions: &[Array],
        seed: u64,
        device: TorchDevice,
    ) -> Result<Self> {
        let config = AlignmentConfig::of(model);
        let leaf = move |array: &Array| Ok::<Tch, Error>(Torch::upload(array, &device)?.0.f_set_requires_grad(true)?);
        let parameters = Rc::new(RefCell::new(Vec::new()));
        let created = Rc::clone(&parameters);
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| {
            let initial = init_parameters(std::slice::from_ref(&parameter), seed)?.swap_remove(0).1;
            let tensor = Torch::new(leaf(&initial)?);
            created.borrow_mut().push((parameter.name, tensor.clone()));
            Ok(tensor)
        }));
        let alignment = Alignment::new(model, &path.sub("cross_net"))?;
        let lengths: Vec<usize> = captions.iter().map(|caption| caption.dims()[0]).collect();
        let values = captions.iter().flat_map(Array::values).copied().collect();
        let words = Array::new(&[lengths.iter().sum(), config.width], values)?;
        Ok(Self {
            objective: RefCell::new(Objective::new(config, model.sparse_ratio, 0.0)),
            parameters: parameters.take(),
            images: leaf(images)?,
            words: leaf(&words)?,
            image_ids: (0..lengths.len() as u64).collect(),
            config,
            alignment,
            lengths,
        })
    }

    /// Computes the loss and adds its gradients to those of the leaf tensors. On a GPU it waits until they are computed.
    pub fn forward_backward(&self, method: AlignmentMethod, hinge: &HingeLoss) -> Result<f64> {
        match method {
            AlignmentMethod::Vectorised => self.vectorised(hinge),
            AlignmentMethod::PerCaption => self.per_caption(hinge),
        }
    }

    fn vectorised(&self, hinge: &HingeLoss) -> Result<f64> {
        let [images, words] = [&self.images, &self.words].map(|tensor| Torch::new(tensor.shallow_clone()));
        let weight = |name: &str| match self.parameters.iter().find(|(own, _)| own == name) {
            Some((_, tensor)) => download(&tensor.0),
            None => Err(missing(name)),
        };
        let embeddings = alignment_inputs(&self.alignment, &self.config, images, words, self.lengths.clone())?;
        let all = BatchEmbeddings::gather(std::slice::from_ref(&embeddings), weight)?;
        let local = 0..self.image_ids.len();
        let value = self.objective.borrow_mut().differentiate(&all, &self.image_ids, local, hinge)?;
        if let Some(gradient) = value.gradient {
            gradient.propagate(&embeddings, 1.0)?;
            // Reading a value waits for the GPU.
            let _ = self.images.f_grad()?.f_double_value(&[0, 0, 0])?;
        }
        Ok(value.loss)
    }

    fn per_caption(&self, hinge: &HingeLoss) -> Result<f64> {
        let shard = ImageShard::new(self.config, &self.images)?;
        let mut columns = Vec::with_capacity(self.lengths.len());
        let mut start = 0;
        for &length in &self.lengths {
            let words = self.words.f_narrow(0, start, length as i64)?.f_unsqueeze(0)?;
            let logits = |kept: &Tch| Ok(self.alignment.logits(&Torch::new(kept.shallow_clone()))?.0.shallow_clone());
            columns.push(shard.similarities(&words, logits)?);
            start += length as i64;
        }
        let loss = hinge.loss(&Tch::f_stack(&columns, 1)?, &self.image_ids)?;
        loss.f_backward()?;
        Ok(loss.f_double_value(&[])?)
    }

    /// Returns names and values of the gradients and resets them to 0: `images`, `words`, and the weights by name.
    pub fn take_gradients(&self) -> Result<Vec<(String, Array)>> {
        let mut taken = Vec::with_capacity(self.parameters.len() + 2);
        let parameters = self.parameters.iter().map(|(name, tensor)| (name.as_str(), &*tensor.0));
        for (name, leaf) in [("images", &self.images), ("words", &self.words)].into_iter().chain(parameters) {
            let mut gradient = leaf.f_grad()?;
            if !gradient.defined() {
                return Err(missing(name));
            }
            taken.push((name.to_owned(), download(&gradient)?));
            let _ = gradient.f_zero_()?;
        }
        Ok(taken)
    }
}

pub(super) fn missing(name: &str) -> Error {
    let (expected, found) = ("a tensor with a gradient".to_owned(), "none".to_owned());
    laps_model::Error::Parameter { name: name.to_owned(), expected, found }.into()
}
