//! The part of a step that belongs to the alignment, alone: from embeddings to the loss and back to them.
//!
//! Besides the way that training goes there is the authors' order of work, which training is measured against: one caption
//! after another with all images of the batch, everything recorded, and one backward pass at the end.

use std::{cell::RefCell, rc::Rc};

use tch::Tensor as Tch;

use super::{
    Hinge,
    learner::embeddings,
    objective::{Embeddings, Objective},
    weights::download,
};
use crate::{Error, Result, Torch, TorchDevice, similarity::Shard};
use laps_align::similarity::AlignmentConfig;
use laps_model::{
    array::Array,
    models::{alignment::Alignment, config::ModelConfig},
    params::{Parameter, Path},
    params_init::fresh,
    tensor::Eager,
};

/// How the alignment of a batch is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignmentWay {
    /// As training does it.
    Vectorised,
    /// By the authors' order of work.
    PerCaption,
}

/// Embeddings of a batch and a fresh alignment, all of them leaves that gradients are added to.
pub struct AlignmentStep {
    config: AlignmentConfig,
    alignment: Alignment<Torch>,
    objective: Objective,
    parameters: Vec<(String, Torch)>,
    images: Tch,
    words: Tch,
    lengths: Vec<usize>,
    ids: Vec<u64>,
}

impl AlignmentStep {
    /// Images `(pairs, tokens, width)` and as many captions `(words, width)`, each pair of an image of its own; the weights
    /// of the alignment are made from `seed`.
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
        let seen = Rc::clone(&parameters);
        let path = Path::root(Rc::new(move |parameter: Parameter| {
            let made = fresh(std::slice::from_ref(&parameter), seed)?.swap_remove(0).1;
            let tensor = Torch::new(leaf(&made)?);
            seen.borrow_mut().push((parameter.name, tensor.clone()));
            Ok(tensor)
        }));
        let alignment = Alignment::new(model, &path.sub("cross_net"))?;
        let lengths: Vec<usize> = captions.iter().map(|caption| caption.dims()[0]).collect();
        let values = captions.iter().flat_map(Array::values).copied().collect();
        let words = Array::new(&[lengths.iter().sum(), config.width], values)?;
        Ok(Self {
            objective: Objective::new(config, model.sparse_ratio, 0.0),
            parameters: parameters.take(),
            images: leaf(images)?,
            words: leaf(&words)?,
            ids: (0..lengths.len() as u64).collect(),
            config,
            alignment,
            lengths,
        })
    }

    /// The loss; its gradients are added to those of the leaves, which a GPU has finished too.
    pub fn forward_backward(&self, way: AlignmentWay, hinge: &Hinge) -> Result<f64> {
        match way {
            AlignmentWay::Vectorised => self.vectorised(hinge),
            AlignmentWay::PerCaption => self.per_caption(hinge),
        }
    }

    fn vectorised(&self, hinge: &Hinge) -> Result<f64> {
        let [images, words] = [&self.images, &self.words].map(|tensor| Torch::new(tensor.shallow_clone()));
        let weight = |name: &str| match self.parameters.iter().find(|(own, _)| own == name) {
            Some((_, tensor)) => download(&tensor.0),
            None => Err(missing(name)),
        };
        let embeddings = embeddings(&self.alignment, &self.config, [images, words], self.lengths.clone())?;
        let all = Embeddings::gather(std::slice::from_ref(&embeddings), weight)?;
        let found = self.objective.differentiate(&all, &self.ids, 0..self.ids.len(), hinge)?;
        if let Some(gradient) = found.gradient {
            gradient.propagate(&embeddings, 1.0)?;
            // Reading a number waits for a GPU.
            let _ = self.images.f_grad()?.f_double_value(&[0, 0, 0])?;
        }
        Ok(found.loss)
    }

    fn per_caption(&self, hinge: &Hinge) -> Result<f64> {
        let shard = Shard::new(self.config, &self.images)?;
        let mut columns = Vec::with_capacity(self.lengths.len());
        let mut start = 0;
        for &length in &self.lengths {
            let words = self.words.f_narrow(0, start, length as i64)?.f_unsqueeze(0)?;
            let logits = |kept: &Tch| Ok(self.alignment.logits(&Torch::new(kept.shallow_clone()))?.0.shallow_clone());
            columns.push(shard.similarities(&words, logits)?);
            start += length as i64;
        }
        let loss = hinge.loss(&Tch::f_stack(&columns, 1)?, &self.ids)?;
        loss.f_backward()?;
        Ok(loss.f_double_value(&[])?)
    }

    /// Names and values of the gradients, which are 0 afterwards: `images`, `words`, and the weights by their names.
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

fn missing(name: &str) -> Error {
    let (expected, found) = ("a tensor with a gradient".to_owned(), "none".to_owned());
    laps_model::Error::Parameter { name: name.to_owned(), expected, found }.into()
}
