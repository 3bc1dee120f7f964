//! The training objective: from the embeddings of a batch to the loss and its gradient with respect to them.
//!
//! The similarities are computed first, without recording. They give the gradient of the loss with respect to each pair.
//! Then only the pairs with a non-zero gradient are differentiated, in chunks: with the hardest negatives these are a few.
//! The memory therefore hardly grows with the batch.
//!
//! | Device | Similarities | Gradient |
//! |---|---|---|
//! | CPU | the exact engine, [`laps_align::similarity`] | [`laps_align::gradient`] |
//! | GPU | [`crate::similarity`], as for evaluation | the definition of [`laps_model`], recorded on libtorch tensors |

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    rc::Rc,
};

use tch::{Kind, Tensor as Tch};

use super::HingeLoss;
use crate::{
    Error, Result, Torch, TorchDevice,
    error::model_error,
    similarity::{CaptionBlock, batch_similarities, normalise},
};
use laps_align::similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions};
use laps_model::{
    array::Array,
    heads::{Head, HeadConfig, ItemFeatures},
    models::alignment::PairSimilarity,
    params::{Mode, ParamPath, Parameter},
    tensor::DeviceTensor,
};

/// Embeddings of a batch. Pair `i` is image `i` and caption `i`. If the tensors were recorded,
/// [`EmbeddingGradient::propagate`] passes gradients on to what they were computed from.
pub(crate) struct BatchEmbeddings {
    /// `(images, tokens, dim)`, the class token first if there is one.
    pub(super) images: Tch,
    /// Words of all captions, concatenated, `(words, dim)`.
    pub(super) words: Tch,
    /// Number of words of each caption.
    pub(super) lengths: Vec<usize>,
    /// Logits of the aggregation, `(images, patches, groups)`. None for a head other than LAPS's.
    pub(super) logits: Option<Tch>,
    /// Weights that computed the logits, for the CPU engine. Without them libtorch computes the similarities.
    pub(super) aggregation: Option<AggregationWeights>,
}

impl BatchEmbeddings {
    /// Embeddings for a head other than LAPS's.
    pub(crate) fn of_head(images: Tch, words: Tch, lengths: Vec<usize>) -> Self {
        Self { images, words, lengths, logits: None, aggregation: None }
    }

    /// Concatenates and detaches the embeddings of several parts. On the CPU the weights of the aggregation are added, which
    /// `weight` returns by name.
    pub(crate) fn gather(parts: &[Self], mut weight: impl FnMut(&str) -> Result<Array>) -> Result<Self> {
        let concat_some = |field: fn(&Self) -> Option<&Tch>| -> Result<Option<Tch>> {
            let Some(parts) = parts.iter().map(field).collect::<Option<Vec<_>>>() else { return Ok(None) };
            let parts = parts.into_iter().map(Tch::f_detach).collect::<Result<Vec<_>, _>>()?;
            Ok(Some(if let [whole] = &parts[..] { whole.shallow_clone() } else { Tch::f_cat(&parts, 0)? }))
        };
        let missing = || operation("embeddings of every part", "none".to_owned());
        let concat = |field| concat_some(field)?.ok_or_else(missing);
        let images = concat(|part| Some(&part.images))?;
        let logits = concat_some(|part| part.logits.as_ref())?;
        let on_cpu = images.device() == tch::Device::Cpu;
        Ok(Self {
            words: concat(|part| Some(&part.words))?,
            lengths: parts.iter().flat_map(|part| &part.lengths).copied().collect(),
            aggregation: (on_cpu && logits.is_some())
                .then(|| AggregationWeights::load(|name| Ok(weight(name)?)))
                .transpose()?,
            logits,
            images,
        })
    }
}

impl BatchEmbeddings {
    /// The logits, which the head of LAPS needs.
    fn logits(&self) -> Result<&Tch> {
        self.logits.as_ref().ok_or_else(|| operation("logits of the aggregation", "none".to_owned()))
    }
}

/// Gradient with respect to [`BatchEmbeddings`]; 0 in rows that are not local.
pub(crate) struct EmbeddingGradient {
    images: Tch,
    /// With respect to the normalised words if there are logits, otherwise to the words as they are.
    words: Tch,
    logits: Option<Tch>,
    /// Weights of a head and their gradients.
    weights: Vec<(Tch, Tch)>,
}

/// Value of the objective.
pub(crate) struct ObjectiveValue {
    /// The loss, including the ratio term.
    pub(crate) loss: f64,
    /// Number of pairs with a non-zero gradient.
    pub(super) pairs: usize,
    /// None if the loss is not finite.
    pub(crate) gradient: Option<EmbeddingGradient>,
}

impl ObjectiveValue {
    fn without_gradient(loss: f64) -> Self {
        Self { loss, pairs: 0, gradient: None }
    }
}

/// The objective of a model.
pub(crate) struct Objective {
    config: AlignmentConfig,
    ratio_term: f64,
    /// Approximate bytes of the pairs that libtorch computes at once.
    pub(super) memory: usize,
    /// The engine of the CPU, created by the first step.
    engine: Option<Engine>,
    /// A head other than LAPS's.
    head: Option<HeadObjective>,
}

/// A head other than LAPS's, on the weights that are trained.
struct HeadObjective {
    head: Head<Torch>,
    /// Names of all parameters.
    names: HashSet<String>,
    /// Weights with a gradient.
    parameters: Vec<Tch>,
    /// Running statistics.
    statistics: Vec<Tch>,
    /// Values of a pair with its backward pass, besides those of its words.
    pair_values: usize,
    /// Values of a word of a pair in a graph.
    node_values: usize,
    /// Whether each item has one vector.
    pools: bool,
}

impl Objective {
    /// `ratio_weight` is the weight of the squared difference between the ratio of kept patches and `sparse_ratio`.
    pub(crate) fn new(config: AlignmentConfig, sparse_ratio: f64, ratio_weight: f64) -> Self {
        let ratio_term = ratio_weight * (config.kept as f64 / config.patches as f64 - sparse_ratio).powi(2);
        Self { config, ratio_term, memory: 1 << 30, engine: None, head: None }
    }

    /// The objective of a head other than LAPS's, which `build` creates of its `parameters`. `weight` returns their values, which
    /// stay valid while an optimizer updates them in place.
    ///
    /// # Errors
    /// Errors of `weight` and `build`.
    pub(crate) fn of_head(
        config: AlignmentConfig,
        mode: Mode,
        head: &HeadConfig,
        parameters: Vec<Parameter>,
        weight: impl Fn(&Parameter) -> laps_model::Result<Torch>,
        build: impl FnOnce(&ParamPath<Torch>) -> laps_model::Result<Head<Torch>>,
    ) -> Result<Self> {
        let names = parameters.iter().map(|parameter| parameter.name.clone()).collect();
        let weights = parameters
            .into_iter()
            .map(|parameter| Ok((parameter.name.clone(), weight(&parameter)?)))
            .collect::<laps_model::Result<HashMap<_, _>>>()?;
        let tensors = |has_gradient| {
            let mut tensors: Vec<_> =
                weights.iter().filter(|(_, weight)| weight.0.requires_grad() == has_gradient).collect();
            tensors.sort_by_key(|(name, _)| *name);
            tensors.into_iter().map(|(_, weight)| weight.0.shallow_clone()).collect()
        };
        let [parameters, statistics] = [true, false].map(tensors);
        let node_values = match *head {
            HeadConfig::Sgr { sim_dim, steps } => sim_dim * (4 + 6 * steps),
            _ => 0,
        };
        let pair_values = match *head {
            // The vectors that tokens attend to.
            HeadConfig::ScanI2t | HeadConfig::ScanAll => 4 * config.tokens() * config.width,
            HeadConfig::LapsAblation { .. } => 5 * config.groups * config.patches + 6 * config.tokens() * config.width,
            _ => 0,
        };
        let pools = head.pools();
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| Ok(weights[&parameter.name].clone())));
        let head = build(&path.with_mode(mode))?;
        let head = HeadObjective { head, names, parameters, statistics, pair_values, node_values, pools };
        Ok(Self { config, ratio_term: 0.0, memory: 1 << 30, engine: None, head: Some(head) })
    }

    /// Whether the head is another than LAPS's.
    pub(super) fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// Whether [`differentiate`](Self::differentiate) returns the gradient of the weight `name`.
    pub(super) fn differentiates(&self, name: &str) -> bool {
        self.head.as_ref().is_some_and(|head| head.names.contains(name))
    }

    /// The loss of all pairs, and its gradient with respect to the rows `local` of images and captions. `image_ids` holds
    /// the image of each pair.
    ///
    /// A process with a part of a distributed batch passes the embeddings of all processes and its own rows. The sum of the
    /// gradients of all processes is the gradient of the whole batch.
    pub(crate) fn differentiate(
        &mut self,
        all: &BatchEmbeddings,
        image_ids: &[u64],
        local: Range<usize>,
        hinge: &HingeLoss,
    ) -> Result<ObjectiveValue> {
        let images = all.images.size()[0] as usize;
        if images != all.lengths.len() || images != image_ids.len() || local.end > images {
            let found = format!("{images} images, {} captions, {} image ids", all.lengths.len(), image_ids.len());
            return Err(operation("as many images as captions and image ids", found));
        }
        let _guard = tch::no_grad_guard();
        if let Some(head) = &self.head {
            return head.differentiate(all, image_ids, hinge, &local, self.memory);
        }
        match &all.aggregation {
            Some(aggregation) => self.with_engine(all, aggregation, image_ids, hinge, &local),
            None => self.with_libtorch(all, image_ids, hinge, local),
        }
    }

    fn with_libtorch(
        &self,
        all: &BatchEmbeddings,
        image_ids: &[u64],
        hinge: &HingeLoss,
        local: Range<usize>,
    ) -> Result<ObjectiveValue> {
        let [images, words, logits] = [&all.images, &all.words, all.logits()?].map(Tch::f_detach);
        let (images, words, logits) = (images?, words?, logits?);
        let padding = CaptionPadding::new(&all.lengths, &words)?;
        let captions = padding.pad(&words)?;
        let counts: Vec<f32> = all.lengths.iter().map(|&length| length as f32).collect();
        let counts = Tch::f_from_slice(&counts)?.f_to_device(words.device())?;
        let block = CaptionBlock::new(&captions, padding.mask.shallow_clone(), counts)?;
        let similarities = batch_similarities(&self.config, &images, &logits, &block, self.memory)?;
        drop(block);
        let (alignment_loss, gradient) = tch::with_grad(|| hinge.differentiate(&similarities, image_ids))?;
        let loss = alignment_loss + self.ratio_term;
        if !loss.is_finite() {
            return Ok(ObjectiveValue::without_gradient(loss));
        }
        let factors = Torch::new(gradient).download()?;
        let width = all.lengths.len();
        let pairs: Vec<(usize, usize)> = (0..factors.values().len())
            .filter(|&pair| factors.values()[pair] != 0.0)
            .map(|pair| (pair / width, pair % width))
            .filter(|(image, caption)| local.contains(image) || local.contains(caption))
            .collect();
        let mask = padding.mask()?;
        let mut gradient = self.pair_gradients([&images, &captions, &logits], &mask, &pairs, &factors)?;
        // The pairs are differentiated with respect to the words, which is orthogonal to them: times the norms, this is a
        // gradient with respect to the normalised words.
        gradient.words = padding.unpad(&gradient.words)?.f_mul(&normalise(&words)?.1)?;
        gradient.clear_outside(&local, &all.lengths)?;
        Ok(ObjectiveValue { loss, pairs: non_zero(&factors), gradient: Some(gradient) })
    }

    /// Sum of the gradients of some pairs with respect to images, captions and logits. Captions are padded and not normalised,
    /// `mask` is 1 for their words.
    fn pair_gradients(
        &self,
        [images, captions, logits]: [&Tch; 3],
        mask: &Tch,
        pairs: &[(usize, usize)],
        factors: &Array,
    ) -> Result<EmbeddingGradient> {
        let device = images.device();
        let AlignmentConfig { patches, kept, has_class_token, .. } = self.config;
        let similarity = PairSimilarity { patches, kept, has_class_token };
        let mut gradient = EmbeddingGradient {
            images: images.f_zeros_like()?,
            words: captions.f_zeros_like()?,
            logits: None,
            weights: Vec::new(),
        };
        let mut logits_gradient = logits.f_zeros_like()?;
        for chunk in pairs.chunks(self.chunk_size(captions.size()[1] as usize)) {
            let index = |field: fn(&(usize, usize)) -> usize| {
                let rows: Vec<i64> = chunk.iter().map(|pair| field(pair) as i64).collect();
                Tch::f_from_slice(&rows)?.f_to_device(device)
            };
            let (image_rows, caption_rows) = (index(|pair| pair.0)?, index(|pair| pair.1)?);
            let width = factors.dims()[1];
            let factors: Vec<f32> =
                chunk.iter().map(|(image, caption)| factors.values()[image * width + caption]).collect();
            let factors = Tch::f_from_slice(&factors)?.f_to_device(device)?;
            let leaf = |tensor: &Tch, rows: &Tch| -> Result<Torch> {
                Ok(Torch::new(tensor.f_index_select(0, rows)?.f_set_requires_grad(true)?))
            };
            let leaves = [leaf(images, &image_rows)?, leaf(captions, &caption_rows)?, leaf(logits, &image_rows)?];
            let mask = Torch::new(mask.f_index_select(0, &caption_rows)?);
            let gradients = tch::with_grad(|| {
                let [images, captions, logits] = &leaves;
                let weighted = similarity.pairs(images, logits, captions, &mask)?.0.f_dot(&factors)?;
                let leaves = [images, captions, logits].map(|leaf| &*leaf.0);
                Ok::<_, Error>(Tch::f_run_backward(&[weighted], &leaves, false, false)?)
            })?;
            let sums = [&mut gradient.images, &mut gradient.words, &mut logits_gradient];
            let rows = [&image_rows, &caption_rows, &image_rows];
            for ((sum, gradient), rows) in sums.into_iter().zip(&gradients).zip(rows) {
                add_rows(sum, gradient, rows)?;
            }
        }
        gradient.logits = Some(logits_gradient);
        Ok(gradient)
    }

    /// Pairs of a chunk, by the memory of a pair with its backward pass. Captions have `length` words, including padding.
    fn chunk_size(&self, length: usize) -> usize {
        let AlignmentConfig { patches, groups, width, .. } = self.config;
        let values = 3 * self.config.tokens() * width
            + 5 * groups * patches
            + 6 * self.config.aligned_tokens() * (width + length)
            + 4 * length * width;
        (self.memory / (4 * values)).max(1)
    }

    fn with_engine(
        &mut self,
        all: &BatchEmbeddings,
        aggregation: &AggregationWeights,
        image_ids: &[u64],
        hinge: &HingeLoss,
        local: &Range<usize>,
    ) -> Result<ObjectiveValue> {
        let tensors = [&all.images, &all.words, all.logits()?];
        let [images, words, logits] =
            tensors.map(|tensor| Torch::new(tensor.f_detach().map_err(model_error)?).download());
        let (images, words, logits) = (images?, words?, logits?);
        let finite = |array: &Array| array.values().iter().all(|value| value.is_finite());
        if ![&images, &words, &logits].into_iter().all(finite) {
            return Ok(ObjectiveValue::without_gradient(f64::NAN));
        }
        let mut captions = CaptionMatrix::new(self.config.width);
        let mut start = 0;
        for &length in &all.lengths {
            let caption = words.rows(start..start + length)?;
            captions.push(caption.dims(), caption.values())?;
            start += length;
        }
        let engine = match &mut self.engine {
            Some(engine) => {
                engine.set_weights(aggregation)?;
                engine
            }
            none => {
                let options = EngineOptions { threads: rayon::current_num_threads(), ..EngineOptions::default() };
                none.insert(Engine::new(self.config, aggregation, options)?)
            }
        };
        let similarities = engine.similarities(&images, &captions)?;
        let device = TorchDevice::of(&all.images);
        let similarities = Torch::upload(&similarities, &device)?;
        let (alignment_loss, gradient) = tch::with_grad(|| hinge.differentiate(&similarities.0, image_ids))?;
        let loss = alignment_loss + self.ratio_term;
        if !loss.is_finite() {
            return Ok(ObjectiveValue::without_gradient(loss));
        }
        let factors = Torch::new(gradient).download()?;
        let batch = laps_align::gradient::AlignmentBatch {
            config: self.config,
            images: &images,
            logits: &logits,
            captions: &captions,
        };
        let result = batch.gradient(factors.values(), local)?;
        let upload = |array: &Array| Ok::<_, Error>(Torch::upload(array, &device)?.0.shallow_clone());
        let mut gradient = EmbeddingGradient {
            images: upload(&result.images)?,
            words: upload(&result.words)?,
            logits: Some(upload(&result.logits)?),
            weights: Vec::new(),
        };
        gradient.clear_outside(local, &all.lengths)?;
        Ok(ObjectiveValue { loss, pairs: non_zero(&factors), gradient: Some(gradient) })
    }
}

impl HeadObjective {
    /// The features of each item alone are recorded once, so that dropout and batch statistics are the same for all
    /// pairs. The pairs are compared in chunks of captions, first without recording for the loss, then again with it, so the
    /// memory of a chunk is bounded. Chunks without a gradient are skipped.
    fn differentiate(
        &self,
        all: &BatchEmbeddings,
        image_ids: &[u64],
        hinge: &HingeLoss,
        local: &Range<usize>,
        memory: usize,
    ) -> Result<ObjectiveValue> {
        let leaf = |tensor: &Tch| Ok::<_, Error>(tensor.f_detach()?.f_set_requires_grad(true)?);
        let images = leaf(&all.images)?;
        let padding = CaptionPadding::new(&all.lengths, &all.words)?;
        let captions = leaf(&padding.pad(&all.words.f_detach()?)?)?;
        let mask = padding.mask()?;
        let copy = |running: &Tch| -> Result<Tch> {
            let mut copy = running.f_empty_like()?;
            copy.f_copy_(running)?;
            Ok(copy)
        };
        let statistics = self.statistics.iter().map(copy).collect::<Result<Vec<_>>>()?;
        let (image_features, caption_features) = tch::with_grad(|| {
            let [images, captions, mask] = [&images, &captions, &mask].map(|tensor| Torch::new(tensor.shallow_clone()));
            let captions = self.head.caption_features(&captions, &mask, Some(&mask))?;
            Ok::<_, Error>((self.head.image_features(&images)?, captions))
        })?;

        let chunks = self.chunks(&images, &captions, memory);
        let images_of_all = image_features.try_map(|tensor| Ok::<_, Error>(tensor.0.shallow_clone()))?;
        let columns = chunks.iter().map(|chunk| {
            let captions = caption_features.try_map(|tensor| rows(&tensor.0, chunk))?;
            self.compare(&images_of_all, &captions, &rows(&mask, chunk)?)
        });
        let similarities = Tch::f_cat(&columns.collect::<Result<Vec<_>>>()?, 1)?;
        let (loss, factors) = tch::with_grad(|| hinge.differentiate(&similarities, image_ids))?;
        if !loss.is_finite() {
            for (running, before) in self.statistics.iter().zip(&statistics) {
                running.shallow_clone().f_copy_(before)?;
            }
            return Ok(ObjectiveValue::without_gradient(loss));
        }

        let image_leaves = image_features.try_map(|tensor| leaf(&tensor.0))?;
        let of_images = image_leaves.try_map(Tch::f_zeros_like)?;
        let of_captions = caption_features.try_map(|tensor| tensor.0.f_zeros_like())?;
        let mut of_parameters = self.parameters.iter().map(Tch::f_zeros_like).collect::<Result<Vec<_>, _>>()?;
        for chunk in &chunks {
            let factors = factors.f_narrow(1, chunk.start, chunk.end - chunk.start)?;
            if factors.f_count_nonzero(None)?.f_int64_value(&[])? == 0 {
                continue;
            }
            let caption_leaves = caption_features.try_map(|tensor| leaf(&rows(&tensor.0, chunk)?))?;
            let inputs: Vec<&Tch> =
                image_leaves.tensors().chain(caption_leaves.tensors()).chain(&self.parameters).collect();
            let gradients = tch::with_grad(|| {
                let similarities = self.compare(&image_leaves, &caption_leaves, &rows(&mask, chunk)?)?;
                let weighted = similarities.f_mul(&factors)?.f_sum(Kind::Float)?;
                Ok::<_, Error>(Tch::f_run_backward(&[weighted], &inputs, false, false)?)
            })?;
            let of_chunk = of_captions.try_map(|tensor| rows(tensor, chunk))?;
            let sums = of_images.tensors().chain(of_chunk.tensors()).chain(&of_parameters);
            for (sum, gradient) in sums.zip(gradients) {
                // A parameter that is used for each item alone has no gradient here.
                if gradient.defined() {
                    let _ = sum.shallow_clone().f_add_(&gradient)?;
                }
            }
        }

        let recorded = image_features.tensors().chain(caption_features.tensors());
        let gradients = of_images.tensors().chain(of_captions.tensors());
        let inputs: Vec<&Tch> = [&images, &captions].into_iter().chain(&self.parameters).collect();
        let gradients = tch::with_grad(|| {
            let terms =
                recorded.zip(gradients).map(|(features, gradient)| features.0.f_mul(gradient)?.f_sum(Kind::Float));
            let sum = Tch::f_stack(&terms.collect::<Result<Vec<_>, _>>()?, 0)?.f_sum(Kind::Float)?;
            Ok::<_, Error>(Tch::f_run_backward(&[sum], &inputs, false, false)?)
        })?;
        let mut gradients = gradients.into_iter();
        let (Some(images), Some(captions)) = (gradients.next(), gradients.next()) else {
            return Err(operation("gradients of images and captions", "none".to_owned()));
        };
        for (sum, gradient) in of_parameters.iter_mut().zip(gradients).filter(|(_, gradient)| gradient.defined()) {
            let _ = sum.f_add_(&gradient)?;
        }
        // The gradient of the weights is that of the whole batch, so the other ranks add 0.
        if local.start > 0 {
            of_parameters.iter_mut().try_for_each(|gradient| gradient.f_zero_().map(drop))?;
        }
        let weights = self.parameters.iter().map(Tch::shallow_clone).zip(of_parameters).collect();
        let mut gradient = EmbeddingGradient { images, words: padding.unpad(&captions)?, logits: None, weights };
        gradient.clear_outside(local, &all.lengths)?;
        let pairs = factors.f_count_nonzero(None)?.f_int64_value(&[])? as usize;
        Ok(ObjectiveValue { loss, pairs, gradient: Some(gradient) })
    }

    /// Captions that are compared at once with all images, by the memory of their pairs with the backward pass.
    fn chunks(&self, images: &Tch, captions: &Tch, memory: usize) -> Vec<Range<i64>> {
        let [count, length, width] = [0, 1, 2].map(|axis| captions.size()[axis]);
        let [images, tokens] = [0, 1].map(|axis| images.size()[axis]);
        // Of a word: attention weights and what they are computed from, the attended vector, and nodes.
        let values = match self.pools {
            true => images,
            false => {
                let of_word = 8 * tokens + 4 * width + self.node_values as i64 + 4 * length;
                images * (self.pair_values as i64 + length * of_word)
            }
        };
        let size = (memory as i64 / (4 * values).max(1)).clamp(1, count.max(1));
        (0..count).step_by(size as usize).map(|start| start..(start + size).min(count)).collect()
    }

    fn compare(&self, images: &ItemFeatures<Tch>, captions: &ItemFeatures<Tch>, mask: &Tch) -> Result<Tch> {
        let wrap = |tensor: &Tch| Ok::<_, Error>(Torch::new(tensor.shallow_clone()));
        let similarities = self.head.compare(&images.try_map(wrap)?, &captions.try_map(wrap)?, &wrap(mask)?)?;
        Ok(similarities.0.shallow_clone())
    }
}

fn rows(tensor: &Tch, range: &Range<i64>) -> Result<Tch> {
    Ok(tensor.f_narrow(0, range.start, range.end - range.start)?)
}

fn operation(expected: &str, found: String) -> Error {
    laps_model::Error::Operation { operation: "objective", expected: expected.to_owned(), found }.into()
}

/// Number of pairs with a gradient, local or not.
fn non_zero(factors: &Array) -> usize {
    factors.values().iter().filter(|&&factor| factor != 0.0).count()
}

/// Adds row `i` of `values` to row `rows[i]` of `sum`, as a matrix product. The product is deterministic; an indexed
/// addition on a GPU sums in any order.
fn add_rows(sum: &mut Tch, values: &Tch, rows: &Tch) -> Result<()> {
    let selection = Tch::f_zeros([sum.size()[0], rows.size()[0]], (Kind::Float, values.device()))?;
    let selection = selection.f_scatter_value(0, &rows.f_unsqueeze(0)?, 1.0)?;
    let added = selection.f_matmul(&values.f_reshape([rows.size()[0], -1])?)?;
    let _ = sum.f_add_(&added.f_reshape(sum.size())?)?;
    Ok(())
}

/// Index tensors between concatenated captions and captions padded to the longest.
pub(super) struct CaptionPadding {
    /// Word of each padded position; the number of words for padding. `(captions * length)`.
    words: Tch,
    /// Padded position of each word, `(words)`.
    positions: Tch,
    /// Mask of the padding, `(captions, length)`.
    mask: Tch,
}

impl CaptionPadding {
    pub(super) fn new(lengths: &[usize], words: &Tch) -> Result<Self> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let padding = words.size()[0];
        let mut padded_words = vec![padding; lengths.len() * longest];
        let mut positions = Vec::with_capacity(padding as usize);
        for (caption, &length) in lengths.iter().enumerate() {
            let start = caption * longest;
            for (offset, word) in padded_words[start..start + length].iter_mut().enumerate() {
                *word = positions.len() as i64;
                positions.push((start + offset) as i64);
            }
        }
        let upload = |indices: &[i64]| Tch::f_from_slice(indices)?.f_to_device(words.device());
        let padded_words = upload(&padded_words)?;
        let mask = padded_words.f_eq(padding)?.f_reshape([lengths.len() as i64, longest as i64])?;
        Ok(Self { words: padded_words, positions: upload(&positions)?, mask })
    }

    /// 1 for a word and 0 for padding, `(captions, length)`.
    pub(super) fn mask(&self) -> Result<Tch> {
        Ok(self.mask.f_logical_not()?.f_to_kind(Kind::Float)?)
    }

    /// `(words, dim)` to `(captions, length, dim)`, with 0 in the padding.
    pub(super) fn pad(&self, words: &Tch) -> Result<Tch> {
        let width = words.size()[1];
        let with_zero = Tch::f_cat(&[words, &Tch::f_zeros([1, width], (Kind::Float, words.device()))?], 0)?;
        let [captions, length] = [0, 1].map(|axis| self.mask.size()[axis]);
        Ok(with_zero.f_index_select(0, &self.words)?.f_reshape([captions, length, width])?)
    }

    /// `(captions, length, dim)` to `(words, dim)`.
    fn unpad(&self, padded: &Tch) -> Result<Tch> {
        let width = padded.size()[2];
        Ok(padded.f_reshape([-1, width])?.f_index_select(0, &self.positions)?)
    }
}

impl EmbeddingGradient {
    /// Sets the rows that are not local to 0.
    fn clear_outside(&mut self, local: &Range<usize>, lengths: &[usize]) -> Result<()> {
        let words = |captions: Range<usize>| lengths[captions].iter().sum::<usize>() as i64;
        for outside in [0..local.start, local.end..lengths.len()] {
            let [start, count] = [outside.start, outside.len()].map(|number| number as i64);
            for tensor in std::iter::once(&self.images).chain(&self.logits) {
                let _ = tensor.f_narrow(0, start, count)?.f_zero_()?;
            }
            let _ = self.words.f_narrow(0, words(0..outside.start), words(outside))?.f_zero_()?;
        }
        Ok(())
    }

    /// The gradient of the pairs `range` alone. `lengths` are the words of each caption of the batch.
    pub(super) fn rows(&self, range: &Range<usize>, lengths: &[usize]) -> Result<Self> {
        let words = |captions: Range<usize>| lengths[captions].iter().sum::<usize>() as i64;
        let [start, count] = [range.start, range.len()].map(|number| number as i64);
        Ok(Self {
            images: self.images.f_narrow(0, start, count)?,
            words: self.words.f_narrow(0, words(0..range.start), words(range.clone()))?,
            logits: self.logits.as_ref().map(|logits| logits.f_narrow(0, start, count)).transpose()?,
            weights: shallow(&self.weights),
        })
    }

    /// Splits into the gradient of the rows of `first`, with that of the weights, and that of the rows after them.
    pub(super) fn halves(&self, first: &BatchEmbeddings) -> Result<[Self; 2]> {
        let [images, words] = [&first.images, &first.words].map(|tensor| tensor.size()[0]);
        let split = |tensor: &Tch, at: i64| -> Result<[Tch; 2]> {
            Ok([tensor.f_narrow(0, 0, at)?, tensor.f_narrow(0, at, tensor.size()[0] - at)?])
        };
        let [first_images, second_images] = split(&self.images, images)?;
        let [first_words, second_words] = split(&self.words, words)?;
        let [first_logits, second_logits] = match &self.logits {
            Some(logits) => split(logits, images)?.map(Some),
            None => [None, None],
        };
        Ok([
            Self { images: first_images, words: first_words, logits: first_logits, weights: shallow(&self.weights) },
            Self { images: second_images, words: second_words, logits: second_logits, weights: Vec::new() },
        ])
    }

    /// Passes the gradient, times `factor`, on to the tensors that the embeddings were computed from.
    pub(crate) fn propagate(&self, embeddings: &BatchEmbeddings, factor: f64) -> Result<()> {
        tch::with_grad(|| {
            let dot = |x: &Tch, gradient: &Tch| x.f_reshape([-1])?.f_dot(&gradient.f_reshape([-1])?);
            let images = dot(&embeddings.images, &self.images)?;
            let mut sum = match (&self.logits, &embeddings.logits) {
                (Some(gradient), Some(logits)) => {
                    let words = dot(&normalise(&embeddings.words)?.0, &self.words)?;
                    images.f_add(&words)?.f_add(&dot(logits, gradient)?)?
                }
                _ => images.f_add(&dot(&embeddings.words, &self.words)?)?,
            };
            for (weight, gradient) in &self.weights {
                sum = sum.f_add(&dot(weight, gradient)?)?;
            }
            // Frozen backbones without a projection have nothing to train.
            if sum.requires_grad() {
                sum.f_mul_scalar(factor)?.f_backward()?;
            }
            Ok(())
        })
    }
}

fn shallow(weights: &[(Tch, Tch)]) -> Vec<(Tch, Tch)> {
    weights.iter().map(|(weight, gradient)| (weight.shallow_clone(), gradient.shallow_clone())).collect()
}
