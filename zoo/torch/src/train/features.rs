//! Features of frozen backbones: computed once, kept in memory in half precision, and cached on disk for the next run.
//!
//! The ranks of a group compute a share each and exchange them, because each rank needs those of any sample.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use half::{f16, slice::HalfFloatSliceExt};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};
use tch::Tensor as Tch;

use super::{CaptionInputs, ImageInputs, ParamGroup, Weights, split::TokenizedSplit};
use crate::{Result, Torch, distributed::Collective, train::TrainError};
use laps::share;
use laps_data::{Loader, LoaderOptions, image::Preprocessing};
use laps_files::cache;
use laps_hub::registry::TrainPrecision;
use laps_model::{array::Array, models::Laps, params::Mode, tensor::DeviceTensor};

/// Maximum bytes of the features of a split. If they are larger, the backbones run in each step.
pub(super) const MAX_BYTES: usize = 4 << 30;
/// Images or captions of an encoder batch.
const BATCH_SIZE: usize = 16;
/// Values that a rank sends at once.
const EXCHANGED_VALUES: usize = 32 << 20;

/// Features of all images and captions of a split.
pub(super) struct BackboneFeatures {
    /// `(images, tokens, hidden)`
    images: Vec<f16>,
    image_shape: [usize; 2],
    /// `(words, hidden)`
    words: Vec<f16>,
    word_width: usize,
    spans: Vec<Range<usize>>,
}

impl BackboneFeatures {
    /// Bytes of the features of a split.
    pub(super) fn bytes(weights: &Weights, split: &TokenizedSplit) -> usize {
        let [tokens, width] = image_shape(weights);
        let words = split.spans().last().map_or(0, |span| span.end) * weights.config().text.hidden_size;
        2 * (split.files.len() * tokens * width + words)
    }

    /// Reads the features from the cache, or computes and caches them. None if `stop` becomes true. `is_writer` is true for
    /// one rank of a machine.
    pub(super) fn open(
        weights: &Weights,
        split: &TokenizedSplit,
        threads: usize,
        group: &Collective,
        is_writer: bool,
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let path = cache_path(weights, split)?;
        let cached = if path.is_file() { Self::read(&path, split) } else { None };
        // Ranks on another machine may have no cache file, and all ranks compute or none.
        if !group.any(cached.is_none())? {
            return Ok(cached);
        }
        let Some(features) = Self::compute(weights, split, threads, group, stop)? else { return Ok(None) };
        if is_writer {
            features.write(&path)?;
        }
        Ok(Some(features))
    }

    fn compute(
        weights: &Weights,
        split: &TokenizedSplit,
        threads: usize,
        group: &Collective,
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        let _guard = tch::no_grad_guard();
        let model: Laps<Torch> = weights.model(TrainPrecision::F32, Mode::Evaluation)?;
        let device = weights.device();
        let image_shape = image_shape(weights);
        let image_values = image_shape.iter().product::<usize>();
        let shares: Vec<Range<usize>> =
            (0..group.world_size()).map(|rank| share(split.files.len(), rank, group.world_size())).collect();
        let mut images = Vec::with_capacity(split.files.len() * image_values);
        let preprocessing = Preprocessing::of(&weights.config().image);
        let options = LoaderOptions { batch_size: BATCH_SIZE, threads, prefetch: 2 };
        for batch in Loader::start(split.files[shares[group.rank()].clone()].to_vec(), preprocessing, options)? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let features = model.image.features(&Torch::upload(&batch?.pixels, &device)?)?.download()?;
            images.extend(features.values().iter().map(|&value| f16::from_f32(value)));
        }
        let sizes: Vec<usize> = shares.iter().map(|share| share.len() * image_values).collect();
        let images = exchange(group, images, &sizes)?;

        let word_width = weights.config().text.hidden_size;
        let spans = split.spans();
        let batches = split.batches_by_length(BATCH_SIZE);
        let shares: Vec<_> =
            (0..group.world_size()).map(|rank| &batches[share(batches.len(), rank, group.world_size())]).collect();
        let mut own = Vec::new();
        for captions in shares[group.rank()] {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (input_ids, mask) = split.pad(captions)?;
            let [input_ids, mask] = [input_ids, mask].map(|array| Torch::upload(&array, &device));
            let features = model.text.features(&input_ids?, &mask?)?.download()?;
            let padded = features.dims()[1] * word_width;
            for (&caption, row) in captions.iter().zip(features.values().chunks_exact(padded)) {
                own.extend(row[..spans[caption].len() * word_width].iter().map(|&value| f16::from_f32(value)));
            }
        }
        let size = |share: &&[Vec<usize>]| {
            share.iter().flatten().map(|&caption| spans[caption].len() * word_width).sum::<usize>()
        };
        let by_length = exchange(group, own, &shares.iter().map(size).collect::<Vec<_>>())?;
        let mut words = vec![f16::ZERO; by_length.len()];
        let mut start = 0;
        for &caption in batches.iter().flatten() {
            let Range { start: first, end } = spans[caption];
            let target = &mut words[first * word_width..end * word_width];
            target.copy_from_slice(&by_length[start..start + target.len()]);
            start += target.len();
        }
        Ok(Some(Self { images, image_shape, words, word_width, spans }))
    }

    /// Reads a cache file. None if it does not hold the features of the split; it is then replaced.
    fn read(path: &std::path::Path, split: &TokenizedSplit) -> Option<Self> {
        let bytes = fs_err::read(path).ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let half = |name: &str| -> Option<(Vec<usize>, Vec<f16>)> {
            let view = file.tensor(name).ok()?;
            let values = view.data().as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes)).collect();
            (view.dtype() == Dtype::F16).then(|| (view.shape().to_vec(), values))
        };
        let ((image_shape, images), (word_shape, words)) = (half("images")?, half("words")?);
        let spans = split.spans();
        let fits = image_shape.first() == Some(&split.files.len())
            && word_shape.first() == spans.last().map(|span| span.end).as_ref();
        fits.then_some(())?;
        let ([_, tokens, width], [_, word_width]) = (image_shape[..].try_into().ok()?, word_shape[..].try_into().ok()?);
        Some(Self { images, image_shape: [tokens, width], words, word_width, spans })
    }

    fn write(&self, path: &Path) -> Result<()> {
        let bytes = |values: &[f16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (images, words) = (bytes(&self.images), bytes(&self.words));
        let [tokens, width] = self.image_shape;
        let shape = vec![images.len() / (2 * tokens * width).max(1), tokens, width];
        let word_shape = vec![words.len() / (2 * self.word_width).max(1), self.word_width];
        let failed = |reason: String| TrainError::State { path: path.to_owned(), reason };
        let view = |shape, bytes| TensorView::new(Dtype::F16, shape, bytes).map_err(|error| failed(error.to_string()));
        let views = [("images", view(shape, &images)?), ("words", view(word_shape, &words)?)];
        let file = safetensors::serialize(views, None).map_err(|error| failed(error.to_string()))?;
        Ok(laps_files::replace(path, &file).map_err(|error| failed(error.to_string()))?)
    }

    /// Features `(images, tokens, hidden)` of some images.
    pub(super) fn images(&self, images: impl ExactSizeIterator<Item = usize>) -> Result<Array> {
        let [tokens, width] = self.image_shape;
        let image_values = tokens * width;
        let mut values = vec![0.0; images.len() * image_values];
        let shape = [images.len(), tokens, width];
        for (image, target) in images.zip(values.chunks_exact_mut(image_values.max(1))) {
            self.images[image * image_values..][..image_values].convert_to_f32_slice(target);
        }
        Ok(Array::new(&shape, values)?)
    }

    /// Concatenated features `(words, hidden)` of some captions, and the number of words of each.
    pub(super) fn words(&self, captions: impl Iterator<Item = usize>) -> Result<(Array, Vec<usize>)> {
        let mut values = Vec::new();
        let mut lengths = Vec::new();
        for span in captions.map(|caption| &self.spans[caption]) {
            let from = values.len();
            let half = &self.words[span.start * self.word_width..span.end * self.word_width];
            values.resize(from + half.len(), 0.0);
            half.convert_to_f32_slice(&mut values[from..]);
            lengths.push(span.len());
        }
        let words = lengths.iter().sum();
        Ok((Array::new(&[words, self.word_width], values)?, lengths))
    }

    /// Inputs of a batch.
    pub(super) fn batch(
        &self,
        image_ids: &[u64],
        captions: &[usize],
    ) -> Result<(ImageInputs<'static>, CaptionInputs<'static>)> {
        let (words, lengths) = self.words(captions.iter().copied())?;
        let images = self.images(image_ids.iter().map(|&id| id as usize))?;
        Ok((ImageInputs::Features(images), CaptionInputs::Features(words, lengths)))
    }
}

/// Tokens and width of the features of an image.
fn image_shape(weights: &Weights) -> [usize; 2] {
    let image = &weights.config().image;
    [image.num_patches() + usize::from(image.has_class_token()), image.hidden_size()]
}

/// The values of all ranks in the order of the ranks. Rank `i` has `sizes[i]`.
fn exchange(group: &Collective, own: Vec<f16>, sizes: &[usize]) -> Result<Vec<f16>> {
    if group.world_size() == 1 {
        return Ok(own);
    }
    let mut all = Vec::with_capacity(sizes.iter().sum());
    for (root, &size) in sizes.iter().enumerate() {
        for start in (0..size).step_by(EXCHANGED_VALUES) {
            let count = (size - start).min(EXCHANGED_VALUES);
            // As f32, which every backend can send; each f16 has the same value there.
            let mut values = vec![0.0; count];
            if root == group.rank() {
                own[start..start + count].convert_to_f32_slice(&mut values);
            }
            let tensor = Tch::f_from_slice(&values)?.f_to_device(group.device())?;
            group.broadcast(&tensor, root)?;
            tensor.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut values, count)?;
            all.extend(values.iter().map(|&value| f16::from_f32(value)));
        }
    }
    Ok(all)
}

/// Path of the cache file. The name is a hash of the preprocessing, the backbones' configuration and weights, the image
/// files and the tokens.
fn cache_path(weights: &Weights, split: &TokenizedSplit) -> Result<PathBuf> {
    let mut hasher = Sha256::new();
    hasher.update(format!("{:?}", Preprocessing::of(&weights.config().image)));
    // Options that the shapes of the weights do not show: heads, windows, eps.
    hasher.update(format!("{:?} {:?}", weights.config().image, weights.config().text));
    for array in weights.arrays() {
        let (name, array) = array?;
        if ParamGroup::of(name) == ParamGroup::Backbones {
            hasher.update(name);
            array.values().iter().for_each(|value| hasher.update(value.to_le_bytes()));
        }
    }
    for file in &split.files {
        let bytes = fs_err::read(&file.path).map_err(laps_data::DataError::from)?;
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    for input_ids in &split.input_ids {
        hasher.update((input_ids.len() as u64).to_le_bytes());
        input_ids.iter().for_each(|id| hasher.update(id.to_le_bytes()));
    }
    let hash: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(cache::folder()?.join(format!("features-{hash}.safetensors")))
}
