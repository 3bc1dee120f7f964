//! The objective: all embeddings of a batch to the loss and to its gradient with respect to them.
//!
//! The similarities are computed without recording first; they give the gradient of the loss with respect to each pair. Then
//! the pairs that have one are differentiated, an image at a time: with the hardest negatives these are a few. So memory
//! hardly grows with the batch. On the CPU the exact engine computes the similarities, and [`crate::train::alignment`] the
//! gradient; elsewhere libtorch does, which records each image for the pairs that need it.

use std::ops::Range;

use tch::Tensor as Tch;

use super::{
    alignment::{Image, Order, Selection, normalise},
    captions::CaptionSet,
    hinge::Hinge,
};
use crate::{
    Error, Result,
    array::Array,
    retrieval::similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions},
    tensor::Eager,
    torch::{Torch, TorchDevice},
    train::alignment::Batch,
};

/// Embeddings of a batch, pair `i` being image `i` and caption `i`. They may carry a history, to which
/// [`Gradient::propagate`] passes the gradient.
pub(super) struct Embeddings {
    /// `(images, tokens, width)`, the class token first where there is one.
    pub(super) images: Tch,
    /// Words of all captions, one caption after another, `(words, width)`.
    pub(super) words: Tch,
    /// Words of each caption.
    pub(super) lengths: Vec<usize>,
    /// Logits of the aggregation, `(images, patches, groups)`.
    pub(super) logits: Tch,
    /// What the logits were computed with, for the engine of the CPU; without it the similarities are computed by libtorch.
    pub(super) aggregation: Option<AggregationWeights>,
}

impl Embeddings {
    /// Those of several parts, one after another and without their history; on the processor with the weights of the
    /// aggregation, which `weight` gives by name.
    pub(super) fn gather(parts: &[Self], weight: impl FnMut(&str) -> Result<Array>) -> Result<Self> {
        let together = |own: fn(&Self) -> &Tch| -> Result<Tch> {
            let parts = parts.iter().map(|part| own(part).f_detach()).collect::<Result<Vec<_>, _>>()?;
            if let [whole] = &parts[..] { Ok(whole.shallow_clone()) } else { Ok(Tch::f_cat(&parts, 0)?) }
        };
        let images = together(|part| &part.images)?;
        let on_processor = images.device() == tch::Device::Cpu;
        Ok(Self {
            words: together(|part| &part.words)?,
            logits: together(|part| &part.logits)?,
            lengths: parts.iter().flat_map(|part| &part.lengths).copied().collect(),
            aggregation: on_processor.then(|| AggregationWeights::load(weight)).transpose()?,
            images,
        })
    }
}

/// Gradient with respect to [`Embeddings`], 0 in rows that are not local.
pub(super) struct Gradient {
    images: Tch,
    words: Tch,
    logits: Tch,
}

/// What the objective finds.
pub(super) struct Found {
    /// The loss, the ratio term included.
    pub(super) loss: f64,
    /// Pairs with a gradient.
    pub(super) pairs: usize,
    /// Nothing where the loss is not finite.
    pub(super) gradient: Option<Gradient>,
}

impl Found {
    /// A loss that is not finite.
    fn nothing(loss: f64) -> Self {
        Self { loss, pairs: 0, gradient: None }
    }
}

/// The objective of one model.
pub(super) struct Objective {
    config: AlignmentConfig,
    ratio_term: f64,
}

impl Objective {
    /// `ratio_weight` is the weight of the squared difference of the share of kept patches and `sparse_ratio`.
    pub(super) fn new(config: AlignmentConfig, sparse_ratio: f64, ratio_weight: f64) -> Self {
        let ratio_term = ratio_weight * (config.kept as f64 / config.patches as f64 - sparse_ratio).powi(2);
        Self { config, ratio_term }
    }

    /// The loss of all pairs, and its gradient with respect to the rows `local` of images and captions. `ids` has the image
    /// of each pair.
    ///
    /// A process that has some rows of a distributed batch gathers the embeddings of all and names its own; the sum of
    /// what the processes propagate is the gradient of the whole.
    pub(super) fn differentiate(
        &self,
        all: &Embeddings,
        ids: &[u64],
        local: Range<usize>,
        hinge: &Hinge,
    ) -> Result<Found> {
        let images = all.images.size()[0] as usize;
        if images != all.lengths.len() || images != ids.len() || local.end > images {
            return Err(Error::Operation {
                operation: "objective",
                expected: "as many images as captions and identifiers".to_owned(),
                found: format!("{images} images, {} captions, {} identifiers", all.lengths.len(), ids.len()),
            });
        }
        let _guard = tch::no_grad_guard();
        match &all.aggregation {
            Some(aggregation) => self.on_processor(all, aggregation, (ids, hinge), &local),
            None => self.on_libtorch(all, (ids, hinge), local),
        }
    }

    fn on_libtorch(&self, all: &Embeddings, (ids, hinge): (&[u64], &Hinge), local: Range<usize>) -> Result<Found> {
        let detached = Detached::new(all)?;
        let captions = CaptionSet::new(detached.words.shallow_clone(), &all.lengths)?;
        let means = normalise(&captions.mean(&all.words.f_detach()?)?)?;
        let similarities = self.by_image(&detached, &captions, &means)?;
        drop(captions);
        let (alignment, with_respect) = tch::with_grad(|| hinge.differentiate(&similarities, ids))?;
        let loss = alignment + self.ratio_term;
        if !loss.is_finite() {
            return Ok(Found::nothing(loss));
        }
        let (gradient, pairs) = self.gradient(&detached, (all, &means), &with_respect, local)?;
        Ok(Found { loss, pairs, gradient: Some(gradient) })
    }

    fn on_processor(
        &self,
        all: &Embeddings,
        aggregation: &AggregationWeights,
        (ids, hinge): (&[u64], &Hinge),
        local: &Range<usize>,
    ) -> Result<Found> {
        let tensors = [&all.images, &all.words, &all.logits];
        let [images, words, logits] = tensors.map(|tensor| Torch::new(tensor.f_detach()?).download());
        let (images, words, logits) = (images?, words?, logits?);
        let finite = |array: &Array| array.values().iter().all(|value| value.is_finite());
        if ![&images, &words, &logits].into_iter().all(finite) {
            return Ok(Found::nothing(f64::NAN));
        }
        let mut captions = CaptionMatrix::new(self.config.width);
        let mut start = 0;
        for &length in &all.lengths {
            let caption = words.rows(start..start + length)?;
            captions.push(caption.dims(), caption.values())?;
            start += length;
        }
        let threads = rayon::current_num_threads();
        let engine = Engine::new(self.config, aggregation, EngineOptions { threads, ..EngineOptions::default() })?;
        let similarities = engine.similarities(&images, &captions)?;
        let similarities = Torch::upload(&similarities, &TorchDevice::of(&all.images))?;
        let (alignment, with_respect) = tch::with_grad(|| hinge.differentiate(&similarities.0, ids))?;
        let loss = alignment + self.ratio_term;
        if !loss.is_finite() {
            return Ok(Found::nothing(loss));
        }
        let factors = Torch::new(with_respect).download()?;
        let batch = Batch { config: self.config, images: &images, logits: &logits, captions: &captions };
        let found = batch.gradient(factors.values(), local)?;
        let upload =
            |array: &Array| Ok::<_, Error>(Torch::upload(array, &TorchDevice::of(&all.images))?.0.shallow_clone());
        let mut gradient =
            Gradient { images: upload(&found.images)?, words: upload(&found.words)?, logits: upload(&found.logits)? };
        gradient.clear_beyond(local, &all.lengths)?;
        Ok(Found { loss, pairs: found.pairs, gradient: Some(gradient) })
    }

    /// All similarities, an image at a time.
    fn by_image(&self, detached: &Detached, captions: &CaptionSet, means: &Tch) -> Result<Tch> {
        let mut rows = Vec::new();
        for image in 0..detached.images.size()[0] {
            let selection = Selection::new(&self.config, &detached.images.f_select(0, image)?, means)?;
            let order = Order::new(&selection)?;
            let (tokens, logits) = detached.ordered(image, &order, &self.config)?;
            let image = Image { config: &self.config, tokens: &tokens, logits: &logits, order: &order };
            rows.push(image.similarities(captions)?);
        }
        Ok(Tch::f_stack(&rows, 0)?)
    }

    fn gradient(
        &self,
        detached: &Detached,
        (all, means): (&Embeddings, &Tch),
        with_respect: &Tch,
        local: Range<usize>,
    ) -> Result<(Gradient, usize)> {
        let mut gradient = Gradient {
            images: detached.images.f_zeros_like()?,
            words: detached.words.f_zeros_like()?,
            logits: detached.logits.f_zeros_like()?,
        };
        let mut starts = vec![0];
        starts.extend(all.lengths.iter().scan(0, |end, &length| {
            *end += length as i64;
            Some(*end)
        }));
        let mut factors = vec![0f32; with_respect.numel()];
        let count = factors.len();
        with_respect.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_copy_data(&mut factors, count)?;
        let mut pairs = 0;
        for (image, factors) in factors.chunks_exact(all.lengths.len().max(1)).enumerate() {
            let needed =
                |&caption: &usize| factors[caption] != 0.0 && (local.contains(&image) || local.contains(&caption));
            let captions: Vec<usize> = (0..factors.len()).filter(needed).collect();
            if captions.is_empty() {
                continue;
            }
            pairs += captions.len();
            self.add_image(detached, (image, &captions, factors), (&all.lengths, &starts), means, &mut gradient)?;
        }
        gradient.clear_beyond(&local, &all.lengths)?;
        Ok((gradient, pairs))
    }

    /// Adds what the pairs of one image give.
    fn add_image(
        &self,
        detached: &Detached,
        (image, captions, factors): (usize, &[usize], &[f32]),
        (lengths, starts): (&[usize], &[i64]),
        means: &Tch,
        gradient: &mut Gradient,
    ) -> Result<()> {
        let device = detached.words.device();
        let index = |indices: &[i64]| Ok::<Tch, Error>(Tch::f_from_slice(indices)?.f_to_device(device)?);
        let columns: Vec<i64> = captions.iter().map(|&caption| caption as i64).collect();
        let means = means.f_index_select(0, &index(&columns)?)?;
        let tokens = detached.images.f_select(0, image as i64)?;
        let order = Order::new(&Selection::new(&self.config, &tokens, &means)?)?;
        let (tokens, logits) = detached.ordered(image as i64, &order, &self.config)?;
        let words: Vec<i64> = captions.iter().flat_map(|&caption| starts[caption]..starts[caption + 1]).collect();
        let word_rows = index(&words)?;
        let words = detached.words.f_index_select(0, &word_rows)?;
        let leaves = [tokens, logits, words].map(|leaf| leaf.f_set_requires_grad(true));
        let [tokens, logits, words] = leaves;
        let (tokens, logits, words) = (tokens?, logits?, words?);

        let own: Vec<usize> = captions.iter().map(|&caption| lengths[caption]).collect();
        let factors: Vec<f32> = captions.iter().map(|&caption| factors[caption]).collect();
        let factors = Tch::f_from_slice(&factors)?.f_to_device(device)?;
        let gradients = tch::with_grad(|| {
            let captions = CaptionSet::new(words.shallow_clone(), &own)?;
            let found = Image { config: &self.config, tokens: &tokens, logits: &logits, order: &order };
            let weighted = found.similarities(&captions)?.f_dot(&factors)?;
            Ok::<_, Error>(Tch::f_run_backward(&[weighted], &[&tokens, &logits, &words], false, false)?)
        })?;
        let image = image as i64;
        let _ = gradient.images.f_select(0, image)?.f_index_copy_(0, &order.rows(&self.config)?, &gradients[0])?;
        let _ = gradient.logits.f_select(0, image)?.f_index_copy_(0, order.places(), &gradients[1])?;
        let _ = gradient.words.f_index_add_(0, &word_rows, &gradients[2])?;
        Ok(())
    }
}

/// Embeddings without their history, the words normalised.
struct Detached {
    images: Tch,
    words: Tch,
    logits: Tch,
}

impl Detached {
    fn new(all: &Embeddings) -> Result<Self> {
        Ok(Self {
            images: all.images.f_detach()?,
            words: normalise(&all.words.f_detach()?)?,
            logits: all.logits.f_detach()?,
        })
    }

    /// Tokens and logits of an image in an order.
    fn ordered(&self, image: i64, order: &Order, config: &AlignmentConfig) -> Result<(Tch, Tch)> {
        let tokens = self.images.f_select(0, image)?.f_index_select(0, &order.rows(config)?)?;
        Ok((tokens, self.logits.f_select(0, image)?.f_index_select(0, order.places())?))
    }
}

impl Gradient {
    /// Takes out the rows that are not local.
    fn clear_beyond(&mut self, local: &Range<usize>, lengths: &[usize]) -> Result<()> {
        let words = |captions: Range<usize>| lengths[captions].iter().sum::<usize>() as i64;
        for beyond in [0..local.start, local.end..lengths.len()] {
            let [start, count] = [beyond.start, beyond.len()].map(|number| number as i64);
            for tensor in [&self.images, &self.logits] {
                let _ = tensor.f_narrow(0, start, count)?.f_zero_()?;
            }
            let _ = self.words.f_narrow(0, words(0..beyond.start), words(beyond))?.f_zero_()?;
        }
        Ok(())
    }

    /// That of the rows of `first`, and that of all after them.
    pub(super) fn halves(&self, first: &Embeddings) -> Result<[Self; 2]> {
        let [images, words] = [&first.images, &first.words].map(|tensor| tensor.size()[0]);
        let split = |tensor: &Tch, at: i64| -> Result<[Tch; 2]> {
            Ok([tensor.f_narrow(0, 0, at)?, tensor.f_narrow(0, at, tensor.size()[0] - at)?])
        };
        let ([i, after_i], [w, after_w]) = (split(&self.images, images)?, split(&self.words, words)?);
        let [l, after_l] = split(&self.logits, images)?;
        Ok([Self { images: i, words: w, logits: l }, Self { images: after_i, words: after_w, logits: after_l }])
    }

    /// Passes the gradient, times `factor`, on to what the embeddings were computed from.
    pub(super) fn propagate(&self, all: &Embeddings, factor: f64) -> Result<()> {
        tch::with_grad(|| {
            let normalised = normalise(&all.words)?;
            let along = |x: &Tch, gradient: &Tch| x.f_reshape([-1])?.f_dot(&gradient.f_reshape([-1])?);
            let parts = [
                along(&all.images, &self.images)?,
                along(&normalised, &self.words)?,
                along(&all.logits, &self.logits)?,
            ];
            let sum = parts[0].f_add(&parts[1])?.f_add(&parts[2])?.f_mul_scalar(factor)?;
            Ok(sum.f_backward()?)
        })
    }
}
