//! Features of frozen backbones: computed once, and kept in half precision in shards in the cache folder, from where batches
//! and later runs read them.
//!
//! Shards do not depend on the number of ranks. The ranks of a group compute a share of the missing shards each, and an
//! interrupted run leaves those that are complete.

use std::{
    collections::BTreeMap,
    io::Write,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use fs_err::File;
use half::{f16, slice::HalfFloatSliceExt};
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use super::{ParamGroup, Weights, split::TokenizedSplit};
use crate::{Result, Torch, distributed::Collective, train::TrainError};
use laps::{ProcessGroup, TrainRequest, share};
use laps_data::{Loader, LoaderOptions, image::Preprocessing};
use laps_files::{TensorHeader, cache, hex, safetensors_head, safetensors_header, write_output};
use laps_hub::registry::TrainPrecision;
use laps_model::{array::Array, models::Laps, params::Mode, tensor::DeviceTensor};

/// Maximum bytes of the features of a split. If they are larger, the backbones run in each step.
pub(super) const MAX_BYTES: usize = 16 << 30;
/// Images or captions of an encoder batch. Each shard has whole batches.
const BATCH_SIZE: usize = 16;
/// Most shards of images, and of captions, of a split.
const SHARDS: usize = 64;
/// The tensor of a shard: `(images, tokens, hidden)` or `(words, hidden)`.
const TENSOR: &str = "features";

/// Features of all images and captions of a split.
pub(super) struct BackboneFeatures {
    images: Vec<Shard>,
    images_per_shard: usize,
    /// Tokens and width.
    image_shape: [usize; 2],
    captions: Vec<Shard>,
    /// Of each caption: its shard, and its words there.
    spans: Vec<(usize, Range<usize>)>,
    word_width: usize,
}

impl BackboneFeatures {
    /// Bytes of the features of a split.
    pub(super) fn bytes(weights: &Weights, split: &TokenizedSplit) -> usize {
        let [tokens, width] = image_shape(weights);
        let words: usize = split.input_ids.iter().map(Vec::len).sum();
        2 * (split.files.len() * tokens * width + words * weights.config().text.hidden_size)
    }

    /// Opens the shards in the cache folder, of which missing and damaged ones are computed first. None if `stop` becomes
    /// true.
    pub(super) fn open(
        weights: &Weights,
        split: &TokenizedSplit,
        request: &TrainRequest,
        group: &Collective,
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let shards = ShardedSplit::new(weights, split)?;
        for (rank, ranks) in shares(request.group.as_ref()) {
            // Ranks that have the folder in common see the same shards: nobody writes between the two operations.
            group.barrier()?;
            let missing = shards.missing();
            if !group.any(missing.iter().any(|missing| !missing.is_empty()))? {
                break;
            }
            let [mut images, mut captions] =
                missing.each_ref().map(|missing| missing[share(missing.len(), rank, ranks)].iter().copied());
            // After each shard the ranks meet, so that none waits for another longer than for a shard.
            loop {
                let (images, captions) = (images.next(), captions.next());
                if !group.any(images.is_some() || captions.is_some())? {
                    break;
                }
                if let Some(shard) = images {
                    shards.compute_images(shard, request.threads, stop)?;
                }
                if let Some(shard) = captions {
                    shards.compute_captions(shard, stop)?;
                }
                if group.any(stop.load(Ordering::Relaxed))? {
                    return Ok(None);
                }
            }
        }
        shards.open().map(Some)
    }

    /// Features `(images, tokens, hidden)` of some images.
    pub(super) fn images(&self, images: impl ExactSizeIterator<Item = usize>) -> Result<Array> {
        let [tokens, width] = self.image_shape;
        let shape = [images.len(), tokens, width];
        let mut values = vec![0.0; shape.iter().product()];
        for (image, target) in images.zip(values.chunks_exact_mut((tokens * width).max(1))) {
            let first = image % self.images_per_shard * tokens * width;
            self.images[image / self.images_per_shard].read(first, target)?;
        }
        Ok(Array::new(&shape, values)?)
    }

    /// Concatenated features `(words, hidden)` of some captions, and the number of words of each.
    pub(super) fn words(&self, captions: impl Iterator<Item = usize>) -> Result<(Array, Vec<usize>)> {
        let mut values = Vec::new();
        let mut lengths = Vec::new();
        for (shard, words) in captions.map(|caption| &self.spans[caption]) {
            let from = values.len();
            values.resize(from + words.len() * self.word_width, 0.0);
            self.captions[*shard].read(words.start * self.word_width, &mut values[from..])?;
            lengths.push(words.len());
        }
        let words = lengths.iter().sum();
        Ok((Array::new(&[words, self.word_width], values)?, lengths))
    }
}

/// The shares in which a rank computes missing shards, as its number and that of ranks: one of the whole group; where the
/// machines have no cache folder in common, one of the machine; and what is missing then, if the environment does not say
/// which ranks are on one machine.
fn shares(group: Option<&ProcessGroup>) -> Vec<(usize, usize)> {
    let all = (0, 1);
    match group.filter(|group| group.is_distributed()) {
        None => vec![all],
        Some(ProcessGroup { rank, world_size, local_rank, local_world_size, .. }) => {
            vec![(*rank, *world_size), (local_rank % local_world_size, *local_world_size), all]
        }
    }
}

/// A split, cut into shards.
struct ShardedSplit<'a> {
    weights: &'a Weights,
    split: &'a TokenizedSplit,
    folder: PathBuf,
    /// Images of each shard.
    images: Vec<Range<usize>>,
    /// Captions of each shard, in encoder batches.
    captions: Vec<Vec<Vec<usize>>>,
}

impl<'a> ShardedSplit<'a> {
    fn new(weights: &'a Weights, split: &'a TokenizedSplit) -> Result<Self> {
        let count = split.files.len();
        let per_shard = batches_per_shard(count) * BATCH_SIZE;
        let images = (0..count).step_by(per_shard).map(|start| start..(start + per_shard).min(count)).collect();
        let batches = split.batches_by_length(BATCH_SIZE);
        let captions = batches.chunks(batches_per_shard(split.input_ids.len())).map(<[_]>::to_vec).collect();
        Ok(Self { weights, split, folder: cache_folder(weights, split)?, images, captions })
    }

    fn image_path(&self, shard: usize) -> PathBuf {
        self.folder.join(format!("images-{shard:02}.safetensors"))
    }

    fn caption_path(&self, shard: usize) -> PathBuf {
        self.folder.join(format!("captions-{shard:02}.safetensors"))
    }

    fn open_images(&self, shard: usize) -> Result<Shard> {
        let [tokens, width] = image_shape(self.weights);
        Shard::open(self.image_path(shard), &[self.images[shard].len(), tokens, width])
    }

    fn open_captions(&self, shard: usize) -> Result<Shard> {
        let words = self.captions[shard].iter().flatten().map(|&caption| self.split.input_ids[caption].len()).sum();
        Shard::open(self.caption_path(shard), &[words, self.weights.config().text.hidden_size])
    }

    /// Numbers of the shards of images and of captions that cannot be read.
    fn missing(&self) -> [Vec<usize>; 2] {
        [
            (0..self.images.len()).filter(|&shard| self.open_images(shard).is_err()).collect(),
            (0..self.captions.len()).filter(|&shard| self.open_captions(shard).is_err()).collect(),
        ]
    }

    fn open(&self) -> Result<BackboneFeatures> {
        let mut spans = vec![(0, 0..0); self.split.input_ids.len()];
        for (shard, batches) in self.captions.iter().enumerate() {
            let mut start = 0;
            for &caption in batches.iter().flatten() {
                let end = start + self.split.input_ids[caption].len();
                spans[caption] = (shard, start..end);
                start = end;
            }
        }
        Ok(BackboneFeatures {
            images: (0..self.images.len()).map(|shard| self.open_images(shard)).collect::<Result<_>>()?,
            images_per_shard: self.images.first().map_or(1, Range::len),
            image_shape: image_shape(self.weights),
            captions: (0..self.captions.len()).map(|shard| self.open_captions(shard)).collect::<Result<_>>()?,
            spans,
            word_width: self.weights.config().text.hidden_size,
        })
    }

    /// Writes a shard of images, unless `stop` becomes true.
    fn compute_images(&self, shard: usize, threads: usize, stop: &AtomicBool) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let model: Laps<Torch> = self.weights.model(TrainPrecision::F32, Mode::Evaluation)?;
        let [tokens, width] = image_shape(self.weights);
        let images = &self.split.files[self.images[shard].clone()];
        let preprocessing = Preprocessing::of(&self.weights.config().image);
        let options = LoaderOptions { batch_size: BATCH_SIZE, threads, prefetch: 2 };
        let mut halves = Vec::with_capacity(2 * images.len() * tokens * width);
        for batch in Loader::start(images.to_vec(), preprocessing, options)? {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let features = model.image.features(&Torch::upload(&batch?.pixels, &self.weights.device())?)?;
            push_halves(&mut halves, features.download()?.values());
        }
        write(&self.image_path(shard), &[images.len(), tokens, width], &halves)
    }

    /// Writes a shard of captions, unless `stop` becomes true.
    fn compute_captions(&self, shard: usize, stop: &AtomicBool) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let model: Laps<Torch> = self.weights.model(TrainPrecision::F32, Mode::Evaluation)?;
        let width = self.weights.config().text.hidden_size;
        let mut halves = Vec::new();
        for captions in &self.captions[shard] {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (input_ids, mask) = self.split.pad(captions)?;
            let [input_ids, mask] = [input_ids, mask].map(|array| Torch::upload(&array, &self.weights.device()));
            let features = model.text.features(&input_ids?, &mask?)?.download()?;
            let padded = features.dims()[1] * width;
            for (&caption, row) in captions.iter().zip(features.values().chunks_exact(padded)) {
                push_halves(&mut halves, &row[..self.split.input_ids[caption].len() * width]);
            }
        }
        write(&self.caption_path(shard), &[halves.len() / (2 * width), width], &halves)
    }
}

/// An open shard, whose values are read where they are needed.
struct Shard {
    file: File,
    path: PathBuf,
    /// Offset of its values.
    start: u64,
}

impl Shard {
    fn open(path: PathBuf, shape: &[usize]) -> Result<Self> {
        let read = || {
            let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
            let length = file.metadata().map_err(|error| error.to_string())?.len();
            let mut file = File::from_parts(file, &path);
            let (header, start) = safetensors_header(&mut file, length)?;
            match header.info(TENSOR) {
                Some(info) if info.dtype == Dtype::F16 && info.shape == shape => {
                    Ok((file, start + info.data_offsets.0 as u64))
                }
                _ => Err(format!("no tensor `{TENSOR}` of shape {shape:?} in F16")),
            }
        };
        match read() {
            Ok((file, start)) => Ok(Self { file, path, start }),
            Err(reason) => Err(TrainError::Features { path, reason }.into()),
        }
    }

    /// Reads the values from number `first` on.
    fn read(&self, first: usize, target: &mut [f32]) -> Result<()> {
        let mut bytes = vec![0; 2 * target.len()];
        let read = self.file.file().read_exact_at(&mut bytes, self.start + 2 * first as u64);
        read.map_err(|error| TrainError::Features { path: self.path.clone(), reason: error.to_string() })?;
        let half: Vec<f16> = bytes.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes)).collect();
        half.convert_to_f32_slice(target);
        Ok(())
    }
}

/// Appends values as the bytes of half-precision numbers.
fn push_halves(halves: &mut Vec<u8>, values: &[f32]) {
    halves.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
}

fn write(path: &Path, shape: &[usize], halves: &[u8]) -> Result<()> {
    let failed = |reason| TrainError::Features { path: path.to_owned(), reason };
    let tensor = TensorHeader { name: TENSOR, dtype: "F16", shape, bytes: halves.len() };
    let head = safetensors_head(&[tensor], &BTreeMap::new()).map_err(failed)?;
    let written: std::io::Result<()> =
        write_output(path, |output| output.write_all(&head).and_then(|()| output.write_all(halves)));
    Ok(written.map_err(|error| failed(error.to_string()))?)
}

/// Encoder batches of a shard, for `count` images or captions.
fn batches_per_shard(count: usize) -> usize {
    count.div_ceil(BATCH_SIZE).div_ceil(SHARDS).max(1)
}

/// Tokens and width of the features of an image.
fn image_shape(weights: &Weights) -> [usize; 2] {
    let image = &weights.config().image;
    [image.num_patches() + usize::from(image.has_class_token()), image.hidden_size()]
}

/// The folder of the shards, which is created if it does not exist. The name is a hash of the preprocessing, the backbones'
/// configuration and weights, the image files and the tokens.
fn cache_folder(weights: &Weights, split: &TokenizedSplit) -> Result<PathBuf> {
    let mut hasher = Sha256::new();
    hasher.update(format!("{BATCH_SIZE} {SHARDS} {:?}", Preprocessing::of(&weights.config().image)));
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
    let folder = cache::folder()?.join(cache::FEATURES.to_owned() + &hex(&hasher.finalize()[..16]));
    fs_err::create_dir_all(&folder)
        .map_err(|error| TrainError::Features { path: folder.clone(), reason: error.to_string() })?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::{SHARDS, batches_per_shard, shares};
    use laps::{CommBackend, GradientOverlap, ProcessGroup};

    #[test]
    fn ranks_share_with_the_group_then_with_the_machine() {
        assert_eq!(shares(None), [(0, 1)]);
        let group = ProcessGroup {
            rank: 5,
            world_size: 8,
            local_rank: 1,
            local_world_size: 4,
            master_addr: "node-0".to_owned(),
            master_port: 29500,
            restart_count: 0,
            agent_store: false,
            backend: CommBackend::Gloo,
            overlap: GradientOverlap::Auto,
            timeout: ProcessGroup::TIMEOUT,
        };
        assert_eq!(shares(Some(&group)), [(5, 8), (1, 4), (0, 1)]);
    }

    #[test]
    fn split_has_at_most_64_shards_of_whole_batches() {
        for count in [0_usize, 1, 16, 17, 1000, 1024, 1025, 29_000, 145_000] {
            let shards = count.div_ceil(batches_per_shard(count) * 16);
            assert!(shards <= SHARDS && (count < 1024 || shards > SHARDS / 2), "{count}: {shards}");
        }
    }
}
