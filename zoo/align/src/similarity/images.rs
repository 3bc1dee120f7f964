//! Images prepared for the comparison: everything that does not depend on the caption.

use std::ops::Range;

use super::{
    ablated::{attends, token_columns},
    aligned::AlignedVec,
    config::{AlignmentConfig, CANCELLATION},
    gram::{Gram, GroupProducts},
    packed::PackedRows,
    product::Panels,
    selection::{Mask, select_patches},
    simd::{MAX_LANES, SimdLevel},
    source::ImageSource,
    tokens::{ImageTokens, MeanPatch, group_peaks},
    weights::PackedAggregation,
};
use crate::Result;
use laps_model::heads::Ablation;

/// Images that are ready to be compared with captions.
#[derive(Debug)]
pub struct PreparedImages {
    pub(super) range: Range<usize>,
    pub(super) tokens: Panels,
    pub(super) images: Vec<PreparedImage>,
    /// Products of all tokens of each image with each other, `(tokens, columns)`, for words that attend to them; otherwise
    /// empty.
    pub(super) grams: Vec<PackedRows>,
}

/// One prepared image. Tables over patches have rows of `stride` values, of which the first `groups` are used.
#[derive(Debug)]
pub(super) struct PreparedImage {
    /// Cosine of each patch with the mean patch; minus infinity in the padding to a whole vector.
    pub(super) scores: Vec<f32>,
    /// Norm of each patch, relative to the largest; zero in the padding to a whole vector.
    pub(super) norms: Vec<f32>,
    /// Logits of the aggregation network; empty without groups.
    pub(super) logits: Vec<f32>,
    /// Weight of each normalised patch in each group: `exp(logit - largest logit of the group)` times the norm of the patch.
    pub(super) factors: AlignedVec,
    /// Products of the normalised patches.
    pub(super) gram: Gram,
    /// Reference selection: the patches with the largest `scores`.
    pub(super) reference: Mask,
    /// Squared norms of the groups of the reference selection.
    pub(super) reference_squares: Vec<f32>,
    /// Twice the product of each patch with each group of the reference selection.
    pub(super) reference_products: AlignedVec,
    /// Sum of the squared factors of each group over all patches, divided by [`CANCELLATION`].
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

    /// Range of the images in their source.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub(super) fn new(
        source: &dyn ImageSource,
        range: Range<usize>,
        config: &AlignmentConfig,
        aggregation: Option<&PackedAggregation>,
        ablation: Option<Ablation>,
        level: SimdLevel,
    ) -> Result<Self> {
        let width = config.width;
        let mut panels = Panels::new(range.len() * config.tokens(), width, level.lanes());
        let mut tokens = ImageTokens::new(config);
        let mut normalised = vec![0.0; tokens.values.len()];
        let mut images = Vec::with_capacity(range.len());
        let mut grams = Vec::with_capacity(if attends(ablation) { range.len() } else { 0 });
        for (position, image) in range.clone().enumerate() {
            tokens.read(source, image, config)?;
            let rows = tokens.values.chunks_exact(width).zip(&tokens.norms).zip(normalised.chunks_exact_mut(width));
            for (row, ((token, norm), to)) in rows.enumerate() {
                to.iter_mut().zip(token).for_each(|(slot, &value)| *slot = (f64::from(value) / norm) as f32);
                panels.set(position * config.tokens() + row, to);
            }
            let logits = match aggregation {
                Some(network) => network.logits(tokens.patches(config), stride(config)),
                None => Vec::new(),
            };
            images.push(PreparedImage::new(&tokens, &normalised[..config.patches * width], logits, config, level)?);
            if attends(ablation) {
                let packed = PackedRows::new(&normalised, width, level)?;
                grams.push(PackedRows::new(&packed.product(&normalised), packed.columns(), level)?);
            }
        }
        Ok(Self { range, tokens: panels, images, grams })
    }

    /// Bytes of prepared images.
    pub(super) fn bytes(
        images: usize,
        config: &AlignmentConfig,
        ablation: Option<Ablation>,
        level: SimdLevel,
    ) -> usize {
        let gram = match attends(ablation) {
            true => {
                Panels::bytes(config.tokens(), token_columns(config, level), level.lanes()) + size_of::<PackedRows>()
            }
            false => 0,
        };
        Panels::bytes(images * config.tokens(), config.width, level.lanes())
            + images * (PreparedImage::bytes(config) + gram)
    }

    /// Additional bytes while images are prepared.
    pub(super) fn scratch_bytes(
        config: &AlignmentConfig,
        ablation: Option<Ablation>,
        level: SimdLevel,
        aggregation: Option<&PackedAggregation>,
    ) -> usize {
        let raw = 2 * 4 * config.tokens() * config.width;
        // Packed and unpacked rows, and their products with each other.
        let products = |rows: usize| {
            4 * rows * rows.next_multiple_of(2 * level.lanes()) + 2 * Panels::bytes(rows, config.width, level.lanes())
        };
        let rows = if attends(ablation) { config.tokens() } else { config.patches };
        raw + products(rows).max(aggregation.map_or(0, |network| network.scratch_bytes(config.patches)))
    }
}

/// Row length of the tables over patches, and of the table of aligned tokens and words.
pub(super) fn stride(config: &AlignmentConfig) -> usize {
    config.aligned_tokens().next_multiple_of(MAX_LANES)
}

impl PreparedImage {
    fn new(
        tokens: &ImageTokens,
        normalised: &[f32],
        logits: Vec<f32>,
        config: &AlignmentConfig,
        level: SimdLevel,
    ) -> Result<Self> {
        let AlignmentConfig { patches, groups, width, .. } = *config;
        let stride = stride(config);
        let padded = patches.next_multiple_of(MAX_LANES);
        let norms = &tokens.norms[..patches];
        let largest = norms.iter().copied().fold(0.0, f64::max);
        let mut relative: Vec<f32> = norms.iter().map(|norm| (norm / largest) as f32).collect();
        relative.resize(padded, 0.0);

        let mut factors = AlignedVec::zeros(patches * stride);
        let mut square_floor = vec![0.0; stride];
        for (group, peak) in group_peaks(&logits, stride, groups).into_iter().enumerate() {
            for patch in 0..patches {
                let factor = (logits[patch * stride + group] - peak).exp() * relative[patch];
                factors[patch * stride + group] = factor;
                square_floor[group] += factor * factor;
            }
        }
        square_floor.iter_mut().for_each(|sum| *sum /= CANCELLATION);

        let packed = PackedRows::new(normalised, width, level)?;
        let products_stride = packed.columns();
        let products = packed.product(normalised);
        drop(packed);
        let gram = Gram::new(&products, products_stride, patches);

        let mean = MeanPatch::new(tokens.patches(config), width);
        let mut scores: Vec<f32> = normalised.chunks_exact(width).map(|patch| mean.product(patch) as f32).collect();
        scores.resize(padded, f32::NEG_INFINITY);
        let mut reference = vec![0; patches.div_ceil(64)];
        select_patches(level, &scores, patches, config.kept, &mut reference);
        let (reference_squares, reference_products) = level.run(GroupProducts {
            factors: &factors,
            stride,
            groups,
            patches,
            products: &products,
            products_stride,
            members: &reference,
        });
        Ok(Self {
            scores,
            norms: relative,
            logits,
            factors,
            gram,
            reference,
            reference_squares,
            reference_products,
            square_floor,
        })
    }

    fn bytes(config: &AlignmentConfig) -> usize {
        let stride = stride(config);
        let padded = config.patches.next_multiple_of(MAX_LANES);
        4 * (3 * padded + 3 * config.patches * stride + 2 * stride)
            + Gram::bytes(config.patches)
            + 2 * AlignedVec::bytes(0)
            + size_of::<Self>()
    }
}
