//! One training step: a batch through the encoders, the objective and back, and the optimizer.

use std::{ops::Range, rc::Rc};

use tch::Tensor as Tch;

use super::{
    AdamW, HingeLoss, Weights,
    distribution::GlobalBatch,
    gradient_buckets::GradientBuckets,
    objective::{BatchEmbeddings, EmbeddingGradient, Objective},
    precision::{LossScale, TorchPrecision},
    weights::Weight,
};
use crate::{Result, Torch, TorchDevice, distributed::Collective, set_threads, threads};
use laps_align::similarity::AlignmentConfig;
use laps_hub::registry::{TrainConfig, TrainPrecision};
use laps_model::{
    array::Array,
    encoder::pad_input_ids,
    heads::{Head, HeadConfig},
    models::{Laps, alignment::Alignment},
    params::{self, Mode, Parameter, Regularization},
    random::SplitMix64,
    tensor::{DeviceTensor, Tensor},
};

#[cfg(test)]
mod tests;

/// Options of training steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOptions {
    /// Maximum norm of the gradient of all weights.
    pub grad_clip: f64,
    /// Weight of the squared difference between the ratio of kept patches and `sparse_ratio`.
    pub ratio_weight: f64,
    /// Weight decay of every weight.
    pub weight_decay: f64,
    /// Precision of the encoders.
    pub precision: TrainPrecision,
    /// Dropout while the backbones train.
    pub regularization: Regularization,
    /// CPU threads of a step.
    pub threads: usize,
}

impl StepOptions {
    /// The options of a recipe.
    pub fn of(config: &TrainConfig, threads: usize) -> Self {
        Self {
            grad_clip: config.grad_clip,
            ratio_weight: config.ratio_weight,
            weight_decay: config.weight_decay,
            precision: config.precision,
            regularization: Regularization { dropout: config.dropout, drop_path: config.drop_path, head_dropout: None },
            threads,
        }
    }
}

/// A batch of (image, caption) pairs.
pub struct PairBatch<'a> {
    /// Image of each pair.
    pub images: ImageInputs<'a>,
    /// Caption of each pair.
    pub captions: CaptionInputs<'a>,
    /// Image id of each pair: pairs of the same image are not negatives of each other.
    pub image_ids: &'a [u64],
}

/// Images of a batch.
pub enum ImageInputs<'a> {
    /// Pixels `(pairs, 3, size, size)`.
    Pixels(&'a Array),
    /// Features of the frozen image backbone, `(pairs, tokens, hidden)`.
    Features(Array),
}

/// Captions of a batch.
pub enum CaptionInputs<'a> {
    /// `input_ids` of each caption, without padding.
    Tokens(&'a [&'a [u32]]),
    /// Features of the frozen text backbone: the words of all captions, concatenated, `(words, hidden)`, and the number of
    /// words of each.
    Features(Array, Vec<usize>),
}

/// Result of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// The loss. If it is not finite, the weights are unchanged.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Number of pairs with a non-zero gradient.
    pub pairs: usize,
    /// Whether loss and gradient are finite.
    pub finite: bool,
}

/// Weights, objective and optimizer of a training run.
pub struct Learner {
    /// The weights.
    pub weights: Weights,
    pub(super) optimizer: AdamW,
    pub(super) scale: LossScale,
    objective: Objective,
    options: StepOptions,
    frozen: bool,
    group: Rc<Collective>,
    buckets: GradientBuckets,
    /// The model on the f32 weights, which it shares. None in half precision, where every step records new casts.
    model: Option<Laps<Torch>>,
}

impl Learner {
    /// A learner before its first step, with trainable backbones.
    ///
    /// # Errors
    /// A precision that the device does not support.
    pub fn new(weights: Weights, options: StepOptions) -> Result<Self> {
        options.precision.check(weights.device())?;
        let config = weights.config();
        let sizes = AlignmentConfig::of(config);
        let objective = match config.head {
            HeadConfig::Laps => Objective::new(sizes, config.sparse_ratio, options.ratio_weight),
            head => {
                let mode = Mode::Training(options.regularization);
                let parameters = params::list(|path| Head::of(config, path))?;
                let weight = |parameter: &Parameter| weights.tensor(parameter);
                Objective::of_head(sizes, mode, &head, parameters, weight, |path| Head::of(config, path))?
            }
        };
        let mut learner = Self {
            objective,
            optimizer: AdamW::new(&weights, options.weight_decay)?,
            scale: LossScale::new(options.precision),
            options,
            frozen: false,
            group: Rc::new(Collective::single(weights.device())),
            buckets: GradientBuckets::new(false),
            model: None,
            weights,
        };
        learner.build_model()?;
        Ok(learner)
    }

    /// Makes the batches of [`step`](Self::step) the rows of this rank of a batch of the whole group. All ranks need the
    /// same weights.
    pub fn join(&mut self, group: Rc<Collective>) {
        self.buckets = GradientBuckets::new(group.overlaps());
        self.group = group;
    }

    /// Freezes or unfreezes the backbones. Frozen backbones have no gradients, no dropout and no weight decay.
    pub fn freeze_backbones(&mut self, frozen: bool) -> Result<()> {
        if frozen != self.frozen {
            self.buckets.clear();
        }
        self.frozen = frozen;
        self.build_model()?;
        self.weights.train_backbones(!frozen)
    }

    /// Updates the weights by the summed gradients of `batches`, each of which has its own loss. `learning_rates` are those
    /// of heads and backbones, `seed` is the seed of dropout. See [`release_threads`](Self::release_threads).
    pub fn step(
        &mut self,
        batches: &[PairBatch<'_>],
        hinge: &HingeLoss,
        learning_rates: [f64; 2],
        seed: u64,
    ) -> Result<StepOutcome> {
        tch::manual_seed(self.rank_seed(seed).cast_signed());
        self.weights.clear_gradients()?;
        let in_halves = self.in_halves(batches);
        if in_halves {
            // Idle libtorch threads of this thread would compete with those of the halves.
            self.embedder().take_threads();
        }
        let mut outcome = StepOutcome { loss: 0.0, grad_norm: 0.0, pairs: 0, finite: true };
        for (index, batch) in batches.iter().enumerate() {
            if self.objective.has_head() && index > 0 {
                tch::manual_seed(
                    self.rank_seed(SplitMix64::named(seed, &format!("batch {index}")).bits()).cast_signed(),
                );
            }
            let embedded = self.embed(batch, in_halves)?;
            let all = BatchEmbeddings::gather(&embedded, |name| self.weights.array(name))?;
            let GlobalBatch { embeddings: all, image_ids, local } =
                GlobalBatch::gather(&self.group, all, batch.image_ids)?;
            if self.objective.has_head() {
                // Each rank computes the head for the whole batch, with the same dropout.
                tch::manual_seed(SplitMix64::named(seed, &format!("head {index}")).bits().cast_signed());
            }
            let value = self.objective.differentiate(&all, &image_ids, local.clone(), hinge)?;
            outcome.loss += value.loss / batches.len() as f64;
            outcome.pairs += value.pairs;
            outcome.finite &= value.gradient.is_some();
            let is_last = index + 1 == batches.len();
            if is_last {
                // The last backward pass starts sums over all ranks, so the ranks have to agree before it.
                outcome.finite = !self.group.any(!outcome.finite)?;
                if !outcome.finite {
                    return Ok(outcome);
                }
            }
            let Some(gradient) = value.gradient else { continue };
            let gradient = gradient.rows(&local, &all.lengths)?;
            if is_last {
                self.propagate_and_sum(&gradient, embedded)?;
            } else {
                self.propagate(&gradient, embedded)?;
            }
        }
        let scale = self.scale.factor;
        outcome.grad_norm = self.weights.gradient_norm()? / scale;
        outcome.finite = outcome.grad_norm.is_finite();
        if outcome.finite {
            // The constant is that of `torch.nn.utils.clip_grad_norm_`.
            let clip = (self.options.grad_clip / (outcome.grad_norm + 1e-6)).min(1.0);
            self.optimizer.step(&self.weights, learning_rates, clip / scale, in_halves)?;
        }
        self.scale.update(self.options.precision, outcome.finite);
        Ok(outcome)
    }

    /// Restores the number of libtorch threads of the calling thread, which steps in halves reduce.
    pub fn release_threads(&self) {
        set_threads(self.options.threads);
    }

    /// The seed of dropout, which differs between ranks.
    fn rank_seed(&self, seed: u64) -> u64 {
        match self.group.rank() {
            0 => seed,
            rank => SplitMix64::named(seed, &format!("rank {rank}")).bits(),
        }
    }

    fn mode(&self) -> Mode {
        if self.frozen { Mode::Evaluation } else { Mode::Training(self.options.regularization) }
    }

    /// Builds the model for the current mode. Its tensors are the leaf tensors of the weights, which the optimizer updates
    /// in place, so it stays valid until the mode changes.
    fn build_model(&mut self) -> Result<()> {
        if self.options.precision == TrainPrecision::F32 {
            self.model = Some(self.weights.model(TrainPrecision::F32, self.mode())?);
        }
        Ok(())
    }

    /// Whether a batch is encoded in two halves at once. The operations of small models are too short to be parallel
    /// themselves. Each half adds to the gradients when it is ready. The sum of two terms and 0 has the same bits in either
    /// order; more parts would not be deterministic, nor would dropout, since both halves would draw from one generator.
    fn in_halves(&self, batches: &[PairBatch<'_>]) -> bool {
        let Regularization { dropout, drop_path, .. } = self.options.regularization;
        let no_dropout = self.mode() == Mode::Evaluation || [dropout, drop_path] == [0.0; 2];
        let [batch] = batches else { return false };
        !self.weights.device().is_cuda() && self.options.threads > 1 && batch.image_ids.len() > 1 && no_dropout
    }

    /// Recorded embeddings of the whole batch or of its two halves.
    fn embed(&self, batch: &PairBatch<'_>, in_halves: bool) -> Result<Vec<BatchEmbeddings>> {
        let count = batch.image_ids.len();
        if !in_halves {
            let embedder = self.embedder();
            return Ok(vec![match &self.model {
                Some(model) => embedder.embed(model, batch, 0..count)?,
                None => embedder.embed(&self.weights.model(self.options.precision, self.mode())?, batch, 0..count)?,
            }]);
        }
        // A model holds `Rc`s and cannot be shared with another thread, so each half builds its own from shared weights.
        let half = |range: Range<usize>| {
            let (weights, embedder, mode) = (self.weights.shared(), self.embedder(), self.mode());
            move || {
                embedder.take_threads();
                embedder.embed(&weights.model(embedder.precision, mode)?, batch, range)
            }
        };
        let (first, second) = (half(0..count / 2), half(count / 2..count));
        let (first, second) = rayon::join(first, second);
        Ok(vec![first?, second?])
    }

    /// Passes the gradient of the whole batch on to the weights, through the embeddings of the batch or of its halves.
    fn propagate(&self, gradient: &EmbeddingGradient, embedded: Vec<BatchEmbeddings>) -> Result<()> {
        let (embedder, factor) = (self.embedder(), self.scale.factor);
        let [first, second] = match <[BatchEmbeddings; 2]>::try_from(embedded) {
            Ok(halves) => halves,
            Err(embedded) => return embedded.iter().try_for_each(|all| gradient.propagate(all, factor)),
        };
        let [first_gradient, second_gradient] = gradient.halves(&first)?;
        let backward = |gradient: EmbeddingGradient, half: BatchEmbeddings| {
            move || {
                embedder.take_threads();
                gradient.propagate(&half, factor)
            }
        };
        let (first, second) = rayon::join(backward(first_gradient, first), backward(second_gradient, second));
        first.and(second)
    }

    /// As [`propagate`](Self::propagate), and replaces the gradients of the weights by their sums over all ranks.
    fn propagate_and_sum(&mut self, gradient: &EmbeddingGradient, embedded: Vec<BatchEmbeddings>) -> Result<()> {
        let halves = embedded.len() as i32;
        // The first half alone has the gradient of a head.
        let passes = |weight: &Weight| if self.objective.differentiates(&weight.name) { 1 } else { halves };
        let sum = self.buckets.begin(&self.group, &self.weights, passes)?;
        self.propagate(gradient, embedded)?;
        self.buckets.finish(sum, &self.group, &self.weights)
    }

    fn embedder(&self) -> Embedder {
        Embedder {
            config: AlignmentConfig::of(self.weights.config()),
            device: self.weights.device(),
            precision: self.options.precision,
            half_threads: (self.options.threads / 2).max(1),
        }
    }
}

/// Computes embeddings on a device and in a precision.
#[derive(Clone, Copy)]
struct Embedder {
    config: AlignmentConfig,
    device: TorchDevice,
    precision: TrainPrecision,
    /// Threads of one operation of a half.
    half_threads: usize,
}

impl Embedder {
    /// Sets the libtorch threads of the calling thread for a half.
    fn take_threads(&self) {
        if threads() != self.half_threads {
            set_threads(self.half_threads);
        }
    }

    /// Recorded embeddings of the pairs `range`.
    fn embed(&self, model: &Laps<Torch>, batch: &PairBatch<'_>, range: Range<usize>) -> Result<BatchEmbeddings> {
        let images = match &batch.images {
            ImageInputs::Pixels(pixels) => model.image.features(&self.upload(&pixels.rows(range.clone())?)?)?,
            ImageInputs::Features(features) => self.upload(&features.rows(range.clone())?)?,
        };
        let images = to_f32(&model.image.project(&images)?)?;
        let (words, lengths) = match &batch.captions {
            CaptionInputs::Tokens(captions) => {
                let captions = &captions[range];
                let (input_ids, mask) = pad_input_ids(captions)?;
                let [input_ids, mask] = [input_ids, mask].map(|array| Torch::upload(&array, &self.device));
                let features = model.text.features(&input_ids?, &mask?)?;
                let lengths: Vec<usize> = captions.iter().map(|caption| caption.len()).collect();
                (unpad(&features, &lengths)?, lengths)
            }
            CaptionInputs::Features(features, lengths) => {
                let words = |captions: &[usize]| captions.iter().sum::<usize>();
                let start = words(&lengths[..range.start]);
                let lengths = &lengths[range];
                (self.upload(&features.rows(start..start + words(lengths))?)?, lengths.to_vec())
            }
        };
        let words = to_f32(&model.text.project(&words)?)?;
        match &model.head {
            Head::Laps(alignment) => alignment_inputs(alignment, &self.config, images, words, lengths),
            _ => {
                let [images, words] = [images, words].map(|tensor| tensor.0.shallow_clone());
                Ok(BatchEmbeddings::of_head(images, words, lengths))
            }
        }
    }

    fn upload(&self, array: &Array) -> Result<Torch> {
        let tensor = Torch::upload(array, &self.device)?;
        Ok(Torch::new(tensor.0.f_to_kind(self.precision.kind())?))
    }
}

/// Projected images and words, with the logits of their aggregation and without its weights.
pub(crate) fn alignment_inputs(
    alignment: &Alignment<Torch>,
    config: &AlignmentConfig,
    images: Torch,
    words: Torch,
    lengths: Vec<usize>,
) -> Result<BatchEmbeddings> {
    let patches = images.narrow(1, usize::from(config.has_class_token), config.patches)?;
    let logits = alignment.logits(&patches)?;
    let [images, words, logits] = [images, words, logits].map(|tensor| tensor.0.shallow_clone());
    Ok(BatchEmbeddings { images, words, lengths, logits: Some(logits), aggregation: None })
}

fn to_f32(tensor: &Torch) -> Result<Torch> {
    Ok(Torch::new(tensor.0.f_to_kind(tch::Kind::Float)?))
}

/// `(captions, length, dim)` to the words without padding, `(words, dim)`.
pub(super) fn unpad(features: &Torch, lengths: &[usize]) -> Result<Torch> {
    let [_, length, width] = features.sizes()?;
    let (length, width) = (length.fixed()?, width.fixed()?);
    let positions = lengths.iter().enumerate().flat_map(|(row, &count)| row * length..row * length + count);
    let positions: Vec<i64> = positions.map(|position| position as i64).collect();
    let flat = features.0.f_reshape([-1, width as i64])?;
    Ok(Torch::new(flat.f_index_select(0, &Tch::f_from_slice(&positions)?.f_to_device(flat.device())?)?))
}
