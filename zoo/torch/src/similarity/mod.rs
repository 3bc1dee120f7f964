//! The exact similarity engine on libtorch tensors, for GPUs. Its tests run where `LAPS_ZOO_TEST_DEVICE` says.
//!
//! The algebra is that of [`laps_align::similarity`], arranged as a few large matrix products over all images and
//! all captions of a block. With normalised patches `n_l`, their factors `E_kl` in group `k`, and the mask `m` of the
//! patches that a caption keeps:
//!
//! - `P = X T^T`, the tokens of all images by the words of all captions, these sorted by length and padded to the longest
//!   of their block;
//! - `m` by top-k and scatter of the scores, the cosines with the mean word being a product of their own;
//! - the groups' products with the words are `E (m P)`, one product for each image;
//! - their squared norms are quadratic forms in `m`, `sum over l, l' of m_l m_l' E_kl E_kl' n_l.n_l'`: the coefficients
//!   are prepared once for each image, and `m` times them is one product for each image;
//! - the fused patch likewise, its weights in the place of `m`.
//!
//! Where a norm lost too many digits, the token is computed as a vector in f64, as the engine for CPUs does it.
//!
//! Products have to be in full f32. libtorch's default is that ("highest"; no TF32 in matrix products), tch has no switch
//! for it, but the environment can change it (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`): [`TorchEngine::new`] multiplies a
//! probe and refuses a device that rounds its factors.

mod captions;
mod images;
mod pairs;
mod per_caption;
mod plan;
mod vector;

use std::ops::{ControlFlow, Range};

use tch::{Kind, Tensor as Tch};

use self::{
    captions::{CaptionBlock, DeviceCaptions},
    images::Aggregation,
    pairs::Pairs,
    plan::Sizes,
};
pub use self::{images::DeviceImages, per_caption::PerCaption};
pub(super) use self::{pairs::APART, per_caption::Shard};
use super::TorchDevice;
use crate::{Error, Result};
use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Counts, ImageSource, Outcome, Plan, Sink, Tile,
};
use laps_model::array::Array;

/// Computes similarities of images and captions on a device, exactly and from embeddings.
pub struct TorchEngine {
    config: AlignmentConfig,
    aggregation: Aggregation,
    device: TorchDevice,
    memory_limit: usize,
}

impl TorchEngine {
    /// An engine for one model. `memory_limit` is the number of bytes of all tensors that are alive at one time, the
    /// inputs and the finished matrix not counted; libtorch's own workspaces and its cache of freed memory come on top.
    pub fn new(
        config: AlignmentConfig,
        weights: &AggregationWeights,
        device: TorchDevice,
        memory_limit: usize,
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        config.check()?;
        check_precision(device)?;
        let aggregation = Aggregation::new(weights, &config, device)?;
        Ok(Self { config, aggregation, device, memory_limit })
    }

    /// The sizes it works with.
    pub fn config(&self) -> &AlignmentConfig {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> TorchDevice {
        self.device
    }

    /// Brings some images of `source` to the device and computes what does not depend on the caption.
    pub fn prepare(&self, source: &dyn ImageSource, images: Range<usize>) -> Result<DeviceImages> {
        let _guard = tch::no_grad_guard();
        self.check_images(source)?;
        if images.start > images.end || images.end > source.len() {
            return Err(bad(format!("a range within {} images", source.len()), format!("{images:?}")));
        }
        DeviceImages::new(source, images, &self.config, &self.aggregation, self.device)
    }

    /// All similarities, `(images, captions)`.
    pub fn similarities(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<Array> {
        let [rows, columns] = [images.len(), captions.len()];
        let mut matrix = vec![0.0; rows * columns];
        let mut sink = |tile: &Tile, similarities: &[f32]| {
            for (image, row) in tile.images.clone().zip(similarities.chunks_exact(tile.captions.len())) {
                matrix[image * columns..][tile.captions.clone()].copy_from_slice(row);
            }
            Ok(ControlFlow::Continue(()))
        };
        self.run(images, captions, &self.plan(rows, captions)?, &mut sink)?;
        Ok(Array::new(&[rows, columns], matrix)?)
    }

    /// The largest tiles that fit into the memory limit.
    pub fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        Sizes(&self.config).plan(images, captions, self.memory_limit)
    }

    /// Computes the tiles of `plan` that `sink` wants, and hands each to it when it is finished.
    ///
    /// Of the counts, `from_all_kept` stays 0: norms are always computed from all kept patches here.
    pub fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        let _guard = tch::no_grad_guard();
        self.check_images(images)?;
        if captions.width() != self.config.width {
            return Err(bad(format!("captions of width {}", self.config.width), captions.width().to_string()));
        }
        if [plan.images, plan.captions] != [images.len(), captions.len()] || plan.block_words < captions.longest() {
            let found = format!("{} images and {} captions", images.len(), captions.len());
            return Err(bad(format!("the inputs that the plan was made for: {plan:?}"), found));
        }
        let sizes = Sizes(&self.config);
        let bytes = sizes.block_bytes(plan, captions);
        let mut counts = Counts::default();
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
            for members in words.blocks(&sizes, plan, bytes) {
                let values = self.compare(block, &words.block(members)?, &mut counts)?;
                for (row, to) in values.chunks_exact(members.len()).zip(output.chunks_exact_mut(columns)) {
                    row.iter().zip(members).for_each(|(&value, &place)| to[place] = value);
                }
            }
            if sink.accept(&tile, output)?.is_break() {
                return Ok(Outcome { finished: false, counts });
            }
        }
        Ok(Outcome { finished: true, counts })
    }

    /// The similarities of a block, `(images, captions)`.
    fn compare(&self, images: &DeviceImages, captions: &CaptionBlock, counts: &mut Counts) -> Result<Vec<f32>> {
        let values = to_host(&Pairs { config: &self.config, images, captions }.similarities(counts)?)?;
        counts.pairs += values.len() as u64;
        Ok(values)
    }

    fn check_images(&self, images: &dyn ImageSource) -> Result<()> {
        let expected = [self.config.tokens(), self.config.width];
        if !images.is_empty() && images.shape() != expected {
            return Err(bad(format!("images of shape {expected:?}"), format!("{:?}", images.shape())));
        }
        Ok(())
    }
}

/// Refuses a device that rounds the factors of a product: 1 + 2^-13 has more digits than TF32 and bf16 hold.
fn check_precision(device: TorchDevice) -> Result<()> {
    const SIZE: i64 = 256;
    let options = (Kind::Float, device.device());
    let fine = 1.0 + f64::powi(2.0, -13);
    let left = Tch::f_full([SIZE, SIZE], fine, options)?;
    let product = left.f_matmul(&Tch::f_ones([SIZE, SIZE], options)?)?;
    let error = (f64::from(to_host(&product)?[0]) / SIZE as f64 - fine).abs();
    if error < 1e-5 {
        return Ok(());
    }
    Err(laps_model::Error::Device {
        device: device.to_string(),
        reason: "libtorch rounds the factors of f32 matrix products there (TF32 or bf16)".to_owned(),
        hint: "unset `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`, or use `--device cpu`".to_owned(),
    }
    .into())
}

fn to_host(tensor: &Tch) -> Result<Vec<f32>> {
    let mut values = vec![0.0f32; tensor.numel()];
    let elements = values.len();
    tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_copy_data(&mut values, elements)?;
    Ok(values)
}

fn to_device(values: &[f32], shape: &[i64], device: TorchDevice) -> Result<Tch> {
    Ok(Tch::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device.device())?)
}

/// Rows divided by their Euclidean norms, these being at least 1e-12, and the norms.
pub(super) fn normalise(rows: &Tch) -> Result<(Tch, Tch)> {
    let norms = rows.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(1e-12)?;
    Ok((rows.f_div(&norms)?, norms))
}

/// Leaky ReLU with slope 0.1.
pub(super) fn leaky(tensor: &Tch) -> Result<Tch> {
    Ok(tensor.f_maximum(&tensor.f_mul_scalar(0.1)?)?)
}

fn bad(expected: String, found: String) -> Error {
    laps_model::Error::Operation { operation: "similarity", expected, found }.into()
}
