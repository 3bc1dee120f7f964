//! The exact similarity engine on libtorch tensors, for GPUs.
//!
//! It uses the algebra of [`laps_align::similarity`], arranged as a few large matrix products over all images and captions
//! of a block. With normalised patches `n_l`, their factors `E_kl` in group `k`, and the mask `m` of the patches that a
//! caption keeps:
//!
//! - `P = X T^T` multiplies the tokens of all images by the words of all captions. Captions are sorted by length and padded
//!   to the longest of their block.
//! - `m` is the top-k of the scores. A separate product computes the cosines with the mean word.
//! - The products of the groups with the words are `E (m P)`, one matrix product for each image.
//! - The squared norms of the groups are quadratic forms in `m`: `sum over l, l' of m_l m_l' E_kl E_kl' n_l.n_l'`. The
//!   coefficients are prepared once for each image, and multiplying them by `m` is one matrix product for each image.
//! - The fused patch is computed in the same way, with its weights instead of `m`.
//!
//! If a norm has lost too many digits, the token is computed as a vector in f64, as the CPU engine does.
//!
//! Matrix products must be in full f32. That is libtorch's default ("highest", no TF32), and tch has no switch for it, but
//! the environment variable `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE` can change it. [`TorchEngine::new`] therefore multiplies a
//! probe and rejects a device that rounds its factors.
//!
//! Integration tests run on the device of `LAPS_ZOO_TEST_DEVICE`.

mod block;
mod captions;
mod images;
mod plan;
mod vector;

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

pub use self::images::DeviceImages;
use self::{
    block::BlockComparison,
    captions::DeviceCaptions,
    plan::{MemoryModel, TILE_IMAGES},
};
pub(crate) use self::{captions::CaptionBlock, images::aggregation};
use super::TorchDevice;
use crate::{Error, Result, Torch};
use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, ImageSource, PairCounts, Plan, RunOutcome, TileSink,
    whole_matrix,
};
use laps_model::{
    array::Array,
    models::alignment::{Aggregation, LEAKY_SLOPE, NORM_EPS},
};

/// Computes the exact similarities of image and caption embeddings on a device.
pub struct TorchEngine {
    config: AlignmentConfig,
    aggregation: Aggregation<Torch>,
    device: TorchDevice,
    memory_limit: usize,
}

impl TorchEngine {
    /// Creates an engine for one model. `memory_limit` bounds the bytes of all live tensors, without the inputs and the
    /// finished matrix. libtorch's workspaces and its cache of freed memory come on top.
    ///
    /// # Errors
    /// Weights that do not fit `config`, and a device that rounds the factors of f32 products.
    pub fn new(
        config: AlignmentConfig,
        weights: &AggregationWeights,
        device: TorchDevice,
        memory_limit: usize,
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        config.check()?;
        check_precision(device)?;
        let aggregation = aggregation(weights, &config, device)?;
        Ok(Self { config, aggregation, device, memory_limit })
    }

    /// Sizes of the model.
    pub fn config(&self) -> &AlignmentConfig {
        &self.config
    }

    /// The device.
    pub fn device(&self) -> TorchDevice {
        self.device
    }

    /// Copies some images of `source` to the device and computes everything that does not depend on the caption.
    pub fn prepare(&self, source: &dyn ImageSource, images: Range<usize>) -> Result<DeviceImages> {
        let _guard = tch::no_grad_guard();
        self.check_images(source)?;
        if images.start > images.end || images.end > source.len() {
            return Err(invalid(format!("a range within {} images", source.len()), format!("{images:?}")));
        }
        DeviceImages::read(source, images, &self.config, &self.aggregation, self.device)
    }

    /// All similarities `(images, captions)`.
    pub fn similarities(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<Array> {
        whole_matrix(images.len(), captions.len(), |sink| {
            self.run(images, captions, &self.plan(images.len(), captions)?, sink)
        })
    }

    /// The largest tiles that fit into the memory limit.
    pub fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        MemoryModel(&self.config).plan(images, captions, self.memory_limit)
    }

    /// Computes the tiles of `plan` that `sink` wants and passes each finished tile to it.
    ///
    /// The count `from_all_kept` stays 0, because this engine always computes norms from all kept patches.
    pub fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn TileSink,
    ) -> Result<RunOutcome> {
        let _guard = tch::no_grad_guard();
        self.check_images(images)?;
        if captions.width() != self.config.width {
            return Err(invalid(format!("captions of width {}", self.config.width), captions.width().to_string()));
        }
        plan.check(images, captions)?;
        let memory = MemoryModel(&self.config);
        let block_bytes = memory.block_bytes(plan, captions);
        let mut counts = PairCounts::default();
        let mut output = vec![0.0; plan.tile_images * plan.tile_captions];
        let mut prepared: Option<DeviceImages> = None;
        let mut uploaded: Option<DeviceCaptions> = None;
        for tile in (0..plan.len()).map(|index| plan.tile(index)) {
            if !sink.wants(&tile) {
                continue;
            }
            prepared = prepared.filter(|block| block.range() == tile.images);
            let block = match &mut prepared {
                Some(block) => block,
                none => none.insert(self.prepare(images, tile.images.clone())?),
            };
            uploaded = uploaded.filter(|words| words.range() == tile.captions);
            let words = match &mut uploaded {
                Some(words) => words,
                none => none.insert(DeviceCaptions::new(captions, tile.captions.clone(), self.device)?),
            };
            let output = &mut output[..tile.images.len() * tile.captions.len()];
            let columns = tile.captions.len();
            for members in words.blocks(&memory, plan, block_bytes) {
                let values = self.compare(block, &words.block(members)?, &mut counts)?;
                for (row, to) in values.chunks_exact(members.len()).zip(output.chunks_exact_mut(columns)) {
                    row.iter().zip(members).for_each(|(&value, &caption)| to[caption] = value);
                }
            }
            if sink.accept(&tile, output)?.is_break() {
                return Ok(RunOutcome { finished: false, counts });
            }
        }
        Ok(RunOutcome { finished: true, counts })
    }

    /// Similarities `(images, captions)` of a block.
    fn compare(&self, images: &DeviceImages, captions: &CaptionBlock, counts: &mut PairCounts) -> Result<Vec<f32>> {
        let values = to_host(&BlockComparison { config: &self.config, images, captions }.similarities(counts)?)?;
        counts.pairs += values.len() as u64;
        Ok(values)
    }

    fn check_images(&self, images: &dyn ImageSource) -> Result<()> {
        let expected = [self.config.tokens(), self.config.width];
        if !images.is_empty() && images.shape() != expected {
            return Err(invalid(format!("images of shape {expected:?}"), format!("{:?}", images.shape())));
        }
        Ok(())
    }
}

/// Similarities `(images, captions)` of the tensors of a training batch: images `(images, tokens, width)`, the logits of their
/// aggregation `(images, patches, groups)`, and captions. They are computed in blocks of about `memory_limit` bytes. Nothing is
/// recorded.
pub(crate) fn batch_similarities(
    config: &AlignmentConfig,
    images: &Tch,
    logits: &Tch,
    captions: &CaptionBlock,
    memory_limit: usize,
) -> Result<Tch> {
    let _guard = tch::no_grad_guard();
    let image_count = images.size()[0];
    let [caption_count, length] = [captions.words.size()[0], captions.words.size()[1]];
    let tile_images = (memory_limit / 4 / DeviceImages::bytes(config)).clamp(1, TILE_IMAGES);
    let caption_bytes = MemoryModel(config).caption_bytes(tile_images, length as usize);
    let block_captions = (memory_limit / 2 / caption_bytes).max(1) as i64;
    let mut counts = PairCounts::default();
    let mut rows = Vec::new();
    for first in (0..image_count).step_by(tile_images) {
        let count = (image_count - first).min(tile_images as i64);
        let [tokens, logits] = [images, logits].map(|tensor| tensor.f_narrow(0, first, count));
        let prepared = DeviceImages::new(0..count as usize, &tokens?, logits?, config)?;
        let mut blocks = Vec::new();
        for start in (0..caption_count).step_by(block_captions as usize) {
            let captions = captions.narrow(start, (caption_count - start).min(block_captions))?;
            let comparison = BlockComparison { config, images: &prepared, captions: &captions };
            blocks.push(comparison.similarities(&mut counts)?);
        }
        rows.push(Tch::f_cat(&blocks, 1)?);
    }
    Ok(Tch::f_cat(&rows, 0)?)
}

/// Rejects a device that rounds the factors of a product: 1 + 2^-13 needs more bits than TF32 and bf16 have.
fn check_precision(device: TorchDevice) -> Result<()> {
    const SIZE: i64 = 256;
    let options = (Kind::Float, device.device());
    let probe = 1.0 + f64::powi(2.0, -13);
    let left = Tch::f_full([SIZE, SIZE], probe, options)?;
    let product = left.f_matmul(&Tch::f_ones([SIZE, SIZE], options)?)?;
    let error = (f64::from(to_host(&product)?[0]) / SIZE as f64 - probe).abs();
    if error < 1e-5 {
        return Ok(());
    }
    Err(laps_model::Error::Device {
        device: device.to_string(),
        reason: "libtorch rounds the factors of f32 matrix products on it (TF32 or bf16)".to_owned(),
        hint: "unset `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`, or use device `cpu`".to_owned(),
    }
    .into())
}

pub(crate) fn to_host(tensor: &Tch) -> Result<Vec<f32>> {
    let mut values = vec![0.0f32; tensor.numel()];
    let elements = values.len();
    tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_copy_data(&mut values, elements)?;
    Ok(values)
}

pub(crate) fn to_device(values: &[f32], shape: &[i64], device: TorchDevice) -> Result<Tch> {
    Ok(Tch::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device.device())?)
}

/// Divides rows by their Euclidean norms, at least 1e-12. Returns the normalised rows and the norms.
pub(crate) fn normalise(rows: &Tch) -> Result<(Tch, Tch)> {
    let norms = rows.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(NORM_EPS)?;
    Ok((rows.f_div(&norms)?, norms))
}

/// Leaky ReLU of the cosines.
pub(crate) fn leaky_relu(tensor: &Tch) -> Result<Tch> {
    Ok(tensor.f_maximum(&tensor.f_mul_scalar(LEAKY_SLOPE)?)?)
}

pub(crate) fn invalid(expected: String, found: String) -> Error {
    laps_model::Error::Operation { operation: "similarity", expected, found }.into()
}
