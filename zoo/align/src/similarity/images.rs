//! What can be computed of an image once, whatever the caption.

use std::ops::Range;

use super::{
    aligned::Aligned,
    captions::norm,
    config::AlignmentConfig,
    gram::{Gram, GroupProducts},
    product::Panels,
    selection::{Mask, select_slowly},
    simd::{Level, MOST_LANES},
    source::ImageSource,
    weights::{Aggregation, multiply},
};
use crate::{Error, Result};

/// Some images, ready to be compared with captions.
#[derive(Debug)]
pub struct PreparedImages {
    pub(super) range: Range<usize>,
    pub(super) tokens: Panels,
    pub(super) images: Vec<PreparedImage>,
}

/// One image. Tables over patches have a row of `stride` for each, of which the first `groups` entries are used.
#[derive(Debug)]
pub(super) struct PreparedImage {
    /// Cosine of each patch with the mean patch; minus infinity up to a whole vector.
    pub(super) scores: Vec<f32>,
    /// Norm of each patch, relative to the largest; zero up to a whole vector.
    pub(super) norms: Vec<f32>,
    /// Logits of the aggregation.
    pub(super) logits: Vec<f32>,
    /// `exp(logit - largest of the group)` times the patch's norm: a group points along the sum of normalised patches
    /// with these factors.
    pub(super) factors: Aligned,
    /// Products of the normalised patches.
    pub(super) gram: Gram,
    /// The patches that the image alone would keep.
    pub(super) reference: Mask,
    /// Squared norms of the groups of those patches.
    pub(super) reference_squares: Vec<f32>,
    /// Twice the product of each patch with each of those groups.
    pub(super) reference_products: Aligned,
    /// Sum of the squared factors of each group over all patches, divided by `CANCELLATION`.
    pub(super) square_floor: Vec<f32>,
}

impl PreparedImages {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Which images of their source they are.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub(super) fn new(
        source: &dyn ImageSource,
        range: Range<usize>,
        config: &AlignmentConfig,
        aggregation: &Aggregation,
        level: Level,
    ) -> Result<Self> {
        let [tokens, width] = [config.tokens(), config.width];
        let mut panels = Panels::new(range.len() * tokens, width, level.lanes());
        let mut raw = vec![0.0; tokens * width];
        let mut normalised = vec![0.0; tokens * width];
        let mut images = Vec::with_capacity(range.len());
        for (place, image) in range.clone().enumerate() {
            source.read(image, &mut raw)?;
            raw.rotate_left((tokens - config.patches) * width);
            let mut norms = Vec::with_capacity(config.patches.next_multiple_of(MOST_LANES));
            for (row, token) in raw.chunks_exact(width).enumerate() {
                let norm = norm(token);
                if !norm.is_finite() {
                    return Err(Error::Operation {
                        operation: "similarity",
                        expected: "finite embeddings".to_owned(),
                        found: format!("norm {norm} of a token of image {image}"),
                    });
                }
                let to = &mut normalised[row * width..][..width];
                to.iter_mut().zip(token).for_each(|(slot, &value)| *slot = (f64::from(value) / norm) as f32);
                panels.set(place * tokens + row, to);
                norms.push(norm);
            }
            norms.truncate(config.patches);
            let patches = config.patches * width;
            let logits = aggregation.logits(&raw[..patches], stride(config), level);
            images.push(PreparedImage::new(&raw[..patches], &normalised[..patches], &norms, logits, config, level));
        }
        Ok(Self { range, tokens: panels, images })
    }

    /// Memory that so many images take.
    pub(super) fn bytes(images: usize, config: &AlignmentConfig, level: Level) -> usize {
        Panels::bytes(images * config.tokens(), config.width, level.lanes()) + images * PreparedImage::bytes(config)
    }

    /// Memory that preparing takes beside that.
    pub(super) fn scratch_bytes(config: &AlignmentConfig, level: Level, aggregation: &Aggregation) -> usize {
        let raw = 2 * 4 * config.tokens() * config.width;
        let gram = 4 * config.patches * config.patches.next_multiple_of(2 * level.lanes());
        let packed = Panels::bytes(config.patches, config.width, level.lanes());
        raw + (gram + 2 * packed).max(aggregation.scratch_bytes(config.patches))
    }
}

/// Entries between rows of the tables over patches, and of the table of token and word similarities.
pub(super) fn stride(config: &AlignmentConfig) -> usize {
    config.aligned_tokens().next_multiple_of(MOST_LANES)
}

impl PreparedImage {
    fn new(
        raw: &[f32],
        normalised: &[f32],
        norms: &[f64],
        logits: Vec<f32>,
        config: &AlignmentConfig,
        level: Level,
    ) -> Self {
        let [patches, groups, width, stride] = [config.patches, config.groups, config.width, stride(config)];
        let padded = patches.next_multiple_of(MOST_LANES);
        let largest = norms.iter().copied().fold(0.0, f64::max);
        let mut relative: Vec<f32> = norms.iter().map(|norm| (norm / largest) as f32).collect();
        relative.resize(padded, 0.0);

        let mut factors = Aligned::zeros(patches * stride);
        let mut square_floor = vec![0.0; stride];
        for group in 0..groups {
            let peak = logits.iter().skip(group).step_by(stride).copied().fold(f32::NEG_INFINITY, f32::max);
            for patch in 0..patches {
                let factor = (logits[patch * stride + group] - peak).exp() * relative[patch];
                factors[patch * stride + group] = factor;
                square_floor[group] += factor * factor;
            }
        }
        square_floor.iter_mut().for_each(|sum| *sum /= super::config::CANCELLATION);

        let mut packed = Panels::new(patches, width, level.lanes());
        normalised.chunks_exact(width).enumerate().for_each(|(row, patch)| packed.set(row, patch));
        let products_stride = packed.padded();
        let products = multiply(normalised, &packed, level);
        drop(packed);
        let gram = Gram::new(&products, products_stride, patches);

        let mut scores = mean_cosines(raw, normalised, width);
        let reference = select_slowly(&scores, config.kept);
        scores.resize(padded, f32::NEG_INFINITY);
        let (reference_squares, reference_products) = level.run(GroupProducts {
            factors: &factors,
            stride,
            groups,
            patches,
            products: &products,
            products_stride,
            members: &reference,
        });
        Self {
            scores,
            norms: relative,
            logits,
            factors,
            gram,
            reference,
            reference_squares,
            reference_products,
            square_floor,
        }
    }

    fn bytes(config: &AlignmentConfig) -> usize {
        let stride = stride(config);
        let padded = config.patches.next_multiple_of(MOST_LANES);
        4 * (3 * padded + 3 * config.patches * stride + 2 * stride)
            + Gram::bytes(config.patches)
            + 2 * Aligned::bytes(0)
            + size_of::<Self>()
    }
}

/// Cosine of each patch with the mean of the patches as they are.
fn mean_cosines(raw: &[f32], normalised: &[f32], width: usize) -> Vec<f32> {
    let count = (raw.len() / width) as f64;
    let mut mean = vec![0.0f64; width];
    for patch in raw.chunks_exact(width) {
        mean.iter_mut().zip(patch).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let norm = mean.iter().map(|sum| (sum / count).powi(2)).sum::<f64>().sqrt().max(1e-12) * count;
    let cosine = |patch: &[f32]| {
        // Eight chains, which a processor can work on at the same time.
        let mut sums = [0.0f64; 8];
        for (patch, mean) in patch.chunks(8).zip(mean.chunks(8)) {
            for (sum, (&value, mean)) in sums.iter_mut().zip(patch.iter().zip(mean)) {
                *sum += f64::from(value) * mean;
            }
        }
        sums.iter().sum::<f64>() / norm
    };
    normalised.chunks_exact(width).map(|patch| cosine(patch) as f32).collect()
}
