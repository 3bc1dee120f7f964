//! What frozen backbones make of a split, computed once: in half precision, in memory, and on the disk for the next run.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use half::{f16, slice::HalfFloatSliceExt};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::{Captions, Images, Weights, learner::pad_tokens, samples::Samples};
use crate::{Result, Torch, train::TrainError};
use laps_data::{Loader, LoaderOptions, image::Preprocessing};
use laps_files::cache;
use laps_hub::registry::Precision;
use laps_model::{array::Array, models::Laps, params::Mode, tensor::Eager};

/// Bytes that the features of a split may take in memory. Beyond, backbones compute in each step.
pub(super) const LIMIT: usize = 4 << 30;
/// Images, and captions, that are encoded together.
const TOGETHER: usize = 16;

/// Features of all images and captions of a split.
pub(super) struct Features {
    /// `(images, tokens, hidden)`
    images: Vec<f16>,
    image_shape: [usize; 2],
    /// `(words, hidden)`
    words: Vec<f16>,
    word_width: usize,
    spans: Vec<std::ops::Range<usize>>,
}

impl Features {
    /// Bytes that the features of a split take.
    pub(super) fn bytes(weights: &Weights, samples: &Samples) -> usize {
        let model = weights.config();
        let tokens = model.image.num_patches() + usize::from(model.image.has_class_token());
        let images = samples.files.len() * tokens * model.image.hidden_size();
        2 * (images + samples.spans().last().map_or(0, |span| span.end) * model.text.hidden_size)
    }

    /// Those of the disk if they are there, else computed, and then kept there. Nothing where `stop` becomes true.
    pub(super) fn open(
        weights: &Weights,
        samples: &Samples,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let path = file(weights, samples)?;
        if path.is_file()
            && let Some(features) = Self::read(&path, samples)
        {
            return Ok(Some(features));
        }
        let Some(features) = Self::compute(weights, samples, threads, stop)? else { return Ok(None) };
        features.write(&path)?;
        Ok(Some(features))
    }

    fn compute(weights: &Weights, samples: &Samples, threads: usize, stop: &AtomicBool) -> Result<Option<Self>> {
        let _guard = tch::no_grad_guard();
        let model: Laps<Torch> = weights.model(Precision::F32, Mode::Evaluation)?;
        let device = weights.device();
        let mut images = Vec::new();
        let mut image_shape = [0; 2];
        let preprocessing = Preprocessing::imagenet(weights.config().image.image_size());
        let options = LoaderOptions { batch: TOGETHER, threads, ahead: 2 };
        for batch in Loader::start(samples.files.clone(), preprocessing, options)? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let features = model.image.features(&Torch::upload(&batch?.pixels, &device)?)?.download()?;
            image_shape = [features.dims()[1], features.dims()[2]];
            images.extend(features.values().iter().map(|&value| f16::from_f32(value)));
        }
        let word_width = weights.config().text.hidden_size;
        let spans = samples.spans();
        let mut words = vec![f16::ZERO; spans.last().map_or(0, |span| span.end) * word_width];
        let mut order: Vec<usize> = (0..samples.tokens.len()).collect();
        order.sort_by_key(|&caption| samples.tokens[caption].len());
        for group in order.chunks(TOGETHER) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let rows: Vec<&[u32]> = group.iter().map(|&caption| samples.tokens[caption].as_slice()).collect();
            let (identifiers, mask) = pad_tokens(&rows)?;
            let [identifiers, mask] = [identifiers, mask].map(|array| Torch::upload(&array, &device));
            let features = model.text.features(&identifiers?, &mask?)?.download()?;
            let padded = features.dims()[1] * word_width;
            for (&caption, row) in group.iter().zip(features.values().chunks_exact(padded)) {
                let target = &mut words[spans[caption].start * word_width..spans[caption].end * word_width];
                target.iter_mut().zip(row).for_each(|(to, &from)| *to = f16::from_f32(from));
            }
        }
        Ok(Some(Self { images, image_shape, words, word_width, spans }))
    }

    /// Nothing where the file does not hold what is needed: it is then written anew.
    fn read(path: &std::path::Path, samples: &Samples) -> Option<Self> {
        let bytes = fs_err::read(path).ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let half = |name: &str| -> Option<(Vec<usize>, Vec<f16>)> {
            let view = file.tensor(name).ok()?;
            let values = view.data().as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes)).collect();
            (view.dtype() == Dtype::F16).then(|| (view.shape().to_vec(), values))
        };
        let ((image_shape, images), (word_shape, words)) = (half("images")?, half("words")?);
        let spans = samples.spans();
        let fits = image_shape.first() == Some(&samples.files.len())
            && word_shape.first() == spans.last().map(|span| span.end).as_ref();
        fits.then_some(())?;
        let ([_, tokens, width], [_, word_width]) = (image_shape[..].try_into().ok()?, word_shape[..].try_into().ok()?);
        Some(Self { images, image_shape: [tokens, width], words, word_width, spans })
    }

    fn write(&self, path: &PathBuf) -> Result<()> {
        let bytes = |values: &[f16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (images, words) = (bytes(&self.images), bytes(&self.words));
        let [tokens, width] = self.image_shape;
        let shape = vec![images.len() / (2 * tokens * width).max(1), tokens, width];
        let word_shape = vec![words.len() / (2 * self.word_width).max(1), self.word_width];
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let failed = |reason: String| TrainError::State { path: path.clone(), reason };
        let view = |shape, bytes| TensorView::new(Dtype::F16, shape, bytes).map_err(|error| failed(error.to_string()));
        let views = [("images", view(shape, &images)?), ("words", view(word_shape, &words)?)];
        let written = safetensors::serialize_to_file(views, None, &part).map_err(|error| failed(error.to_string()));
        let renamed = written.and_then(|()| fs_err::rename(&part, path).map_err(|error| failed(error.to_string())));
        if renamed.is_err() {
            // What is left over is of no use.
            let _ = fs_err::remove_file(&part);
        }
        Ok(renamed?)
    }

    /// Those of some images, `(images, tokens, hidden)`.
    pub(super) fn images(&self, images: impl ExactSizeIterator<Item = usize>) -> Result<Array> {
        let [tokens, width] = self.image_shape;
        let each = tokens * width;
        let mut values = vec![0.0; images.len() * each];
        let shape = [images.len(), tokens, width];
        for (image, target) in images.zip(values.chunks_exact_mut(each.max(1))) {
            self.images[image * each..][..each].convert_to_f32_slice(target);
        }
        Ok(Array::new(&shape, values)?)
    }

    /// Those of the words of some captions, one caption after another, and the words of each.
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

    /// A batch of captions and their images.
    pub(super) fn batch(&self, ids: &[u64], captions: &[usize]) -> Result<(Images<'static>, Captions<'static>)> {
        let (words, lengths) = self.words(captions.iter().copied())?;
        let images = self.images(ids.iter().map(|&id| id as usize))?;
        Ok((Images::Features(images), Captions::Features(words, lengths)))
    }
}

/// Where features are kept: the name depends on the backbones' weights, the images' bytes, the tokens, and how images are
/// prepared.
fn file(weights: &Weights, samples: &Samples) -> Result<PathBuf> {
    let mut hasher = Sha256::new();
    hasher.update(format!("{:?}", Preprocessing::imagenet(weights.config().image.image_size())));
    // Sizes that no shape of a weight tells: heads, windows, epsilons.
    hasher.update(format!("{:?} {:?}", weights.config().image, weights.config().text));
    for array in weights.arrays() {
        let (name, array) = array?;
        if super::Group::of(name) == super::Group::Backbones {
            hasher.update(name);
            array.values().iter().for_each(|value| hasher.update(value.to_le_bytes()));
        }
    }
    for file in &samples.files {
        let bytes = fs_err::read(&file.path).map_err(laps_data::DataError::from)?;
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    for tokens in &samples.tokens {
        hasher.update((tokens.len() as u64).to_le_bytes());
        tokens.iter().for_each(|token| hasher.update(token.to_le_bytes()));
    }
    let hash: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(cache::folder()?.join(format!("features-{hash}.safetensors")))
}
