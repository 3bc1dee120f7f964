//! The objective: all embeddings of a batch to the loss and to its gradient with respect to them.
//!
//! The similarities are computed without recording first; they give the gradient of the loss with respect to each pair. Then
//! the pairs that have one are differentiated, some at a time: with the hardest negatives these are a few. So memory hardly
//! grows with the batch. On the CPU the exact engine computes the similarities, and [`laps_align::gradient`] the
//! gradient; elsewhere libtorch does, which records the pairs that need it.

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

use super::{hinge::Hinge, pairs::Batch};
use crate::{Error, Result, Torch, TorchDevice, error::refused, similarity::normalise};
use laps_align::{
    gradient,
    similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions},
};
use laps_model::{array::Array, tensor::Eager};

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
    pub(super) fn gather(parts: &[Self], mut weight: impl FnMut(&str) -> Result<Array>) -> Result<Self> {
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
            aggregation: on_processor.then(|| AggregationWeights::load(|name| Ok(weight(name)?))).transpose()?,
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
    /// Bytes that the pairs which libtorch computes together may take, about.
    pub(super) memory: usize,
}

impl Objective {
    /// `ratio_weight` is the weight of the squared difference of the share of kept patches and `sparse_ratio`.
    pub(super) fn new(config: AlignmentConfig, sparse_ratio: f64, ratio_weight: f64) -> Self {
        let ratio_term = ratio_weight * (config.kept as f64 / config.patches as f64 - sparse_ratio).powi(2);
        Self { config, ratio_term, memory: 1 << 30 }
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
            return Err(laps_model::Error::Operation {
                operation: "objective",
                expected: "as many images as captions and identifiers".to_owned(),
                found: format!("{images} images, {} captions, {} identifiers", all.lengths.len(), ids.len()),
            }
            .into());
        }
        let _guard = tch::no_grad_guard();
        match &all.aggregation {
            Some(aggregation) => self.on_processor(all, aggregation, (ids, hinge), &local),
            None => self.on_libtorch(all, (ids, hinge), local),
        }
    }

    fn on_libtorch(&self, all: &Embeddings, (ids, hinge): (&[u64], &Hinge), local: Range<usize>) -> Result<Found> {
        let [images, words, logits] = [&all.images, &all.words, &all.logits].map(Tch::f_detach);
        let places = Places::new(&all.lengths, &all.words)?;
        let words = places.pad(&words?)?;
        let counts: Vec<f32> = all.lengths.iter().map(|&length| length as f32).collect();
        let counts = Tch::f_from_slice(&counts)?.f_to_device(words.device())?;
        let batch =
            Batch::new((&self.config, self.memory), [images?, logits?, words], places.padding.shallow_clone(), counts)?;
        let similarities = batch.similarities()?;
        let (alignment, with_respect) = tch::with_grad(|| hinge.differentiate(&similarities, ids))?;
        let loss = alignment + self.ratio_term;
        if !loss.is_finite() {
            return Ok(Found::nothing(loss));
        }
        let factors = Torch::new(with_respect).download()?;
        let captions = all.lengths.len();
        let pairs: Vec<(usize, usize)> = (0..factors.values().len())
            .filter(|&place| factors.values()[place] != 0.0)
            .map(|place| (place / captions, place % captions))
            .filter(|(image, caption)| local.contains(image) || local.contains(caption))
            .collect();
        let mut gradient = self.of_pairs(&batch, &pairs, &factors)?;
        gradient.words = places.unpad(&gradient.words)?;
        gradient.clear_beyond(&local, &all.lengths)?;
        Ok(Found { loss, pairs: pairs.len(), gradient: Some(gradient) })
    }

    /// What some pairs give, that of the words padded.
    fn of_pairs(&self, batch: &Batch<'_>, pairs: &[(usize, usize)], factors: &Array) -> Result<Gradient> {
        let device = batch.images.device();
        let mut gradient = Gradient {
            images: batch.images.f_zeros_like()?,
            words: batch.captions.f_zeros_like()?,
            logits: batch.logits.f_zeros_like()?,
        };
        for some in pairs.chunks(batch.together()) {
            let index = |own: fn(&(usize, usize)) -> usize| {
                let rows: Vec<i64> = some.iter().map(|pair| own(pair) as i64).collect();
                Tch::f_from_slice(&rows)?.f_to_device(device)
            };
            let (images, captions) = (index(|pair| pair.0)?, index(|pair| pair.1)?);
            let width = factors.dims()[1];
            let factors: Vec<f32> =
                some.iter().map(|(image, caption)| factors.values()[image * width + caption]).collect();
            let factors = Tch::f_from_slice(&factors)?.f_to_device(device)?;
            let chunk = batch.chunk(&images, &captions)?.recorded()?;
            let leaves = [&chunk.images, &chunk.captions, &chunk.logits];
            let found = tch::with_grad(|| {
                let weighted = chunk.similarities(&self.config)?.f_dot(&factors)?;
                Ok::<_, Error>(Tch::f_run_backward(&[weighted], &leaves, false, false)?)
            })?;
            let sums = [&mut gradient.images, &mut gradient.words, &mut gradient.logits];
            for ((sum, own), rows) in sums.into_iter().zip(&found).zip([&images, &captions, &images]) {
                add_rows(sum, own, rows)?;
            }
        }
        Ok(gradient)
    }

    fn on_processor(
        &self,
        all: &Embeddings,
        aggregation: &AggregationWeights,
        (ids, hinge): (&[u64], &Hinge),
        local: &Range<usize>,
    ) -> Result<Found> {
        let tensors = [&all.images, &all.words, &all.logits];
        let [images, words, logits] = tensors.map(|tensor| Torch::new(tensor.f_detach().map_err(refused)?).download());
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
        let batch =
            laps_align::gradient::Batch { config: self.config, images: &images, logits: &logits, captions: &captions };
        let found = batch.gradient(factors.values(), local)?;
        let upload =
            |array: &Array| Ok::<_, Error>(Torch::upload(array, &TorchDevice::of(&all.images))?.0.shallow_clone());
        let mut gradient =
            Gradient { images: upload(&found.images)?, words: upload(&found.words)?, logits: upload(&found.logits)? };
        gradient.clear_beyond(local, &all.lengths)?;
        Ok(Found { loss, pairs: found.pairs, gradient: Some(gradient) })
    }
}

/// Adds each row of `own` to the row of `sum` that `rows` names. As a product it is the same in every run, where a GPU adds
/// up by index in whatever order.
fn add_rows(sum: &mut Tch, own: &Tch, rows: &Tch) -> Result<()> {
    let which = Tch::f_zeros([sum.size()[0], rows.size()[0]], (Kind::Float, own.device()))?;
    let which = which.f_scatter_value(0, &rows.f_unsqueeze(0)?, 1.0)?;
    let added = which.f_matmul(&own.f_reshape([rows.size()[0], -1])?)?;
    let _ = sum.f_add_(&added.f_reshape(sum.size())?)?;
    Ok(())
}

/// Where the words of captions are, one caption after another and padded to the longest.
struct Places {
    /// For each place of each caption its word, or one beyond all words, `(captions * length)`.
    words: Tch,
    /// For each word its place.
    places: Tch,
    /// Where there is no word, `(captions, length)`.
    padding: Tch,
}

impl Places {
    fn new(lengths: &[usize], words: &Tch) -> Result<Self> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let none = words.size()[0];
        let mut of_places = vec![none; lengths.len() * longest];
        let mut places = Vec::with_capacity(none as usize);
        for (caption, &length) in lengths.iter().enumerate() {
            let start = caption * longest;
            for (offset, word) in of_places[start..start + length].iter_mut().enumerate() {
                *word = places.len() as i64;
                places.push((start + offset) as i64);
            }
        }
        let there = |numbers: &[i64]| Tch::f_from_slice(numbers)?.f_to_device(words.device());
        let of_places = there(&of_places)?;
        let padding = of_places.f_eq(none)?.f_reshape([lengths.len() as i64, longest as i64])?;
        Ok(Self { words: of_places, places: there(&places)?, padding })
    }

    /// `(words, width)` to `(captions, length, width)`, with 0 where there is no word.
    fn pad(&self, words: &Tch) -> Result<Tch> {
        let width = words.size()[1];
        let with_none = Tch::f_cat(&[words, &Tch::f_zeros([1, width], (Kind::Float, words.device()))?], 0)?;
        let [captions, length] = [0, 1].map(|axis| self.padding.size()[axis]);
        Ok(with_none.f_index_select(0, &self.words)?.f_reshape([captions, length, width])?)
    }

    /// The way back.
    fn unpad(&self, padded: &Tch) -> Result<Tch> {
        let width = padded.size()[2];
        Ok(padded.f_reshape([-1, width])?.f_index_select(0, &self.places)?)
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
            let (normalised, _) = normalise(&all.words)?;
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
