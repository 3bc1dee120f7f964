//! One step: a batch through the encoders, the objective and back, and the optimizer.

use std::ops::Range;

use tch::Tensor as Tch;

use super::{
    AdamW, Hinge, Weights,
    objective::{Embeddings, Gradient, Objective},
    precision::{LossScale, TorchPrecision},
};
use crate::{Result, Torch, TorchDevice, set_threads, threads};
use laps_align::similarity::AlignmentConfig;
use laps_hub::registry::{Precision, TrainConfig};
use laps_model::{
    array::Array,
    models::{Laps, alignment::Alignment},
    params::{Mode, Regularization},
    tensor::{Eager, Tensor},
};

/// How steps are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOptions {
    /// Largest norm of the gradient of all weights.
    pub grad_clip: f64,
    /// Weight of the squared difference between the share of patches that is kept and `sparse_ratio`.
    pub ratio_weight: f64,
    /// Weight decay of every weight.
    pub weight_decay: f64,
    /// What the encoders compute in.
    pub precision: Precision,
    /// What is left out at random while the backbones train.
    pub regularization: Regularization,
    /// Threads of a step on the processor.
    pub threads: usize,
}

impl StepOptions {
    /// Those of a recipe.
    pub fn of(config: &TrainConfig, threads: usize) -> Self {
        Self {
            grad_clip: config.grad_clip,
            ratio_weight: config.ratio_weight,
            weight_decay: config.weight_decay,
            precision: config.precision,
            regularization: Regularization { dropout: config.dropout, drop_path: config.drop_path },
            threads,
        }
    }
}

/// Pairs of a batch, as the encoders take them or as frozen backbones left them.
pub struct Pairs<'a> {
    /// Pixels `(pairs, 3, size, size)`, or features `(pairs, tokens, hidden)`.
    pub images: Images<'a>,
    /// Tokens of each caption, or features.
    pub captions: Captions<'a>,
    /// The image of each pair: pairs of one image are no negatives of each other.
    pub ids: &'a [u64],
}

/// Images of a batch.
pub enum Images<'a> {
    /// `(pairs, 3, size, size)`.
    Pixels(&'a Array),
    /// `(pairs, tokens, hidden)`.
    Features(Array),
}

/// Captions of a batch.
pub enum Captions<'a> {
    /// Identifiers of each, not padded.
    Tokens(&'a [&'a [u32]]),
    /// Features of all words, one caption after another, `(words, hidden)`, and the words of each.
    Features(Array, Vec<usize>),
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// The loss; where it was not finite it counted as 0 and the weights stayed as they were.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Pairs that had a gradient.
    pub pairs: usize,
    /// Whether loss and gradient were finite.
    pub finite: bool,
}

/// Weights, objective and optimizer.
pub struct Learner {
    /// The weights.
    pub weights: Weights,
    pub(super) optimizer: AdamW,
    pub(super) scale: LossScale,
    objective: Objective,
    options: StepOptions,
    frozen: bool,
}

impl Learner {
    /// Before the first step, with backbones that train.
    pub fn new(weights: Weights, options: StepOptions) -> Result<Self> {
        options.precision.check(weights.device())?;
        let config = weights.config();
        Ok(Self {
            objective: Objective::new(AlignmentConfig::of(config), config.sparse_ratio, options.ratio_weight),
            optimizer: AdamW::new(&weights, options.weight_decay)?,
            scale: LossScale::new(options.precision),
            options,
            frozen: false,
            weights,
        })
    }

    /// Backbones that are frozen get no gradients, leave nothing out at random, and do not decay.
    pub fn freeze_backbones(&mut self, frozen: bool) -> Result<()> {
        self.frozen = frozen;
        self.weights.train_backbones(!frozen)
    }

    /// Moves the weights by the gradients of `parts`, each with a loss of its own, added up, at the learning rates of heads
    /// and backbones. `seed` decides what is left out at random. See [`release_threads`](Self::release_threads).
    pub fn step(&mut self, parts: &[Pairs<'_>], hinge: &Hinge, rates: [f64; 2], seed: u64) -> Result<Stepped> {
        tch::manual_seed(seed.cast_signed());
        self.weights.clear_gradients()?;
        let in_halves = self.in_halves(parts);
        if in_halves {
            // Threads that libtorch keeps waiting would take the processor from the halves.
            self.place().take_threads();
        }
        let mut stepped = Stepped { loss: 0.0, grad_norm: 0.0, pairs: 0, finite: true };
        for pairs in parts {
            let embedded = self.embed(pairs, in_halves)?;
            let all = Embeddings::gather(&embedded, |name| self.weights.array(name))?;
            let found = self.objective.differentiate(&all, pairs.ids, 0..pairs.ids.len(), hinge)?;
            stepped.loss += found.loss / parts.len() as f64;
            stepped.pairs += found.pairs;
            match found.gradient {
                Some(gradient) => self.propagate(&gradient, embedded)?,
                None => stepped.finite = false,
            }
        }
        if !stepped.finite {
            return Ok(stepped);
        }
        let scale = self.scale.factor;
        stepped.grad_norm = self.weights.gradient_norm()? / scale;
        stepped.finite = stepped.grad_norm.is_finite();
        if stepped.finite {
            // The constant is that of `torch.nn.utils.clip_grad_norm_`.
            let clip = (self.options.grad_clip / (stepped.grad_norm + 1e-6)).min(1.0);
            self.optimizer.step(&self.weights, rates, clip / scale, in_halves)?;
        }
        self.scale.update(self.options.precision, stepped.finite);
        Ok(stepped)
    }

    /// Gives this thread the libtorch threads back that steps in halves do without.
    pub fn release_threads(&self) {
        set_threads(self.options.threads);
    }

    fn mode(&self) -> Mode {
        if self.frozen { Mode::Evaluation } else { Mode::Training(self.options.regularization) }
    }

    /// Whether a batch goes through the encoders in two halves at once. The operations of small models are too short to be
    /// shared out themselves. Each half adds to the gradients when it is ready: two summands from 0 give the same bits in
    /// either order, more would not, nor would numbers that both draw from one generator.
    fn in_halves(&self, parts: &[Pairs<'_>]) -> bool {
        let nothing_left_out = self.mode() == Mode::Evaluation
            || self.options.regularization == Regularization { dropout: 0.0, drop_path: 0.0 };
        let [pairs] = parts else { return false };
        !self.weights.device().is_cuda() && self.options.threads > 1 && pairs.ids.len() > 1 && nothing_left_out
    }

    /// Embeddings with their history, of all pairs or of two halves.
    fn embed(&self, pairs: &Pairs<'_>, in_halves: bool) -> Result<Vec<Embeddings>> {
        let count = pairs.ids.len();
        if !in_halves {
            let model = self.weights.model(self.options.precision, self.mode())?;
            return Ok(vec![self.place().embed(&model, pairs, 0..count)?]);
        }
        let half = |range: Range<usize>| {
            let (weights, place, mode) = (self.weights.shared(), self.place(), self.mode());
            move || {
                place.take_threads();
                place.embed(&weights.model(place.precision, mode)?, pairs, range)
            }
        };
        let (first, second) = (half(0..count / 2), half(count / 2..count));
        let (first, second) = rayon::join(first, second);
        Ok(vec![first?, second?])
    }

    /// The gradient of all pairs to the weights, through embeddings of all or of halves.
    fn propagate(&self, gradient: &Gradient, parts: Vec<Embeddings>) -> Result<()> {
        let (place, factor) = (self.place(), self.scale.factor);
        let [first, second] = match <[Embeddings; 2]>::try_from(parts) {
            Ok(halves) => halves,
            Err(parts) => return parts.iter().try_for_each(|all| gradient.propagate(all, factor)),
        };
        let [of_first, of_second] = gradient.halves(&first)?;
        let back = |gradient: Gradient, part: Embeddings| {
            move || {
                place.take_threads();
                gradient.propagate(&part, factor)
            }
        };
        let (first, second) = rayon::join(back(of_first, first), back(of_second, second));
        first.and(second)
    }

    fn place(&self) -> Place {
        Place {
            config: AlignmentConfig::of(self.weights.config()),
            device: self.weights.device(),
            precision: self.options.precision,
            threads: (self.options.threads / 2).max(1),
        }
    }
}

/// Where and how embeddings are computed.
#[derive(Clone, Copy)]
struct Place {
    config: AlignmentConfig,
    device: TorchDevice,
    precision: Precision,
    /// Of one operation of a half.
    threads: usize,
}

impl Place {
    /// libtorch keeps the number of each thread apart.
    fn take_threads(&self) {
        if threads() != self.threads {
            set_threads(self.threads);
        }
    }

    /// Embeddings of some pairs, with their history.
    fn embed(&self, model: &Laps<Torch>, pairs: &Pairs<'_>, range: Range<usize>) -> Result<Embeddings> {
        let images = match &pairs.images {
            Images::Pixels(pixels) => model.image.features(&self.upload(&pixels.rows(range.clone())?)?)?,
            Images::Features(features) => self.upload(&features.rows(range.clone())?)?,
        };
        let images = single(&model.image.project(&images)?)?;
        let (words, lengths) = match &pairs.captions {
            Captions::Tokens(captions) => {
                let captions = &captions[range];
                let (identifiers, mask) = pad_tokens(captions)?;
                let [identifiers, mask] = [identifiers, mask].map(|array| Torch::upload(&array, &self.device));
                let features = model.text.features(&identifiers?, &mask?)?;
                let lengths: Vec<usize> = captions.iter().map(|caption| caption.len()).collect();
                (unpad(&features, &lengths)?, lengths)
            }
            Captions::Features(features, lengths) => {
                let words = |captions: &[usize]| captions.iter().sum::<usize>();
                let start = words(&lengths[..range.start]);
                let lengths = &lengths[range];
                (self.upload(&features.rows(start..start + words(lengths))?)?, lengths.to_vec())
            }
        };
        let words = single(&model.text.project(&words)?)?;
        embeddings(&model.alignment, &self.config, [images, words], lengths)
    }

    fn upload(&self, array: &Array) -> Result<Torch> {
        let tensor = Torch::upload(array, &self.device)?;
        Ok(Torch::new(tensor.0.f_to_kind(self.precision.kind())?))
    }
}

/// Projected images and words with the logits of their aggregation, without its weights.
pub(super) fn embeddings(
    alignment: &Alignment<Torch>,
    config: &AlignmentConfig,
    [images, words]: [Torch; 2],
    lengths: Vec<usize>,
) -> Result<Embeddings> {
    let patches = images.narrow(1, usize::from(config.has_class_token), config.patches)?;
    let logits = alignment.logits(&patches)?;
    let [images, words, logits] = [images, words, logits].map(|tensor| tensor.0.shallow_clone());
    Ok(Embeddings { images, words, lengths, logits, aggregation: None })
}

/// As f32.
fn single(tensor: &Torch) -> Result<Torch> {
    Ok(Torch::new(tensor.0.f_to_kind(tch::Kind::Float)?))
}

/// Identifiers and mask, `(captions, length)`.
pub(super) fn pad_tokens(captions: &[&[u32]]) -> Result<(Array, Array)> {
    let length = captions.iter().map(|caption| caption.len()).max().unwrap_or(0);
    let mut identifiers = vec![0.0; captions.len() * length];
    let mut mask = identifiers.clone();
    for (row, caption) in captions.iter().enumerate() {
        for (column, &identifier) in caption.iter().enumerate() {
            identifiers[row * length + column] = identifier as f32;
            mask[row * length + column] = 1.0;
        }
    }
    let shape = [captions.len(), length];
    Ok((Array::new(&shape, identifiers)?, Array::new(&shape, mask)?))
}

/// `(captions, length, width)` to the words that are there, `(words, width)`.
fn unpad(features: &Torch, lengths: &[usize]) -> Result<Torch> {
    let [_, length, width] = features.sizes()?;
    let (length, width) = (length.fixed()?, width.fixed()?);
    let places = lengths.iter().enumerate().flat_map(|(row, &count)| row * length..row * length + count);
    let places: Vec<i64> = places.map(|place| place as i64).collect();
    let flat = features.0.f_reshape([-1, width as i64])?;
    Ok(Torch::new(flat.f_index_select(0, &Tch::f_from_slice(&places)?.f_to_device(flat.device())?)?))
}
