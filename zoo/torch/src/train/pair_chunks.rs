//! Similarities of (image, caption) pairs on libtorch, with or without recording gradients.
//!
//! Many pairs are computed at once by the plain definition of the alignment, each with its own copy of its image and
//! caption: on a GPU a few large products are faster than less work in small ones. The copies need memory, so pairs are
//! computed in chunks that fit. The selection of patches has no gradient.
//!
//! [`TorchEngine`](crate::similarity::TorchEngine) computes the same similarities by quadratic forms, which is faster
//! without gradients. Its sums have another order, so the two do not give the same bits.

use tch::{Kind, Tensor as Tch};

use crate::{
    Result,
    similarity::{SCORE_GAP, leaky_relu, normalise},
};
use laps_align::similarity::AlignmentConfig;

/// Detached images and captions of a batch, and the patches that each caption keeps of each image.
pub(super) struct DetachedBatch<'a> {
    config: &'a AlignmentConfig,
    memory: usize,
    /// `(images, tokens, dim)`, the class token first if there is one.
    pub(super) images: Tch,
    /// Logits of the aggregation, `(images, patches, groups)`.
    pub(super) logits: Tch,
    /// Normalised words, 0 in the padding, `(captions, length, dim)`.
    pub(super) captions: Tch,
    /// Mask of the padding, `(captions, length)`.
    padding: Tch,
    /// Number of words, `(captions)`.
    counts: Tch,
    /// Mask of the kept patches, `(images * captions, patches)`.
    kept: Tch,
    /// Weights of the dropped patches in the fused patch, 0 for kept ones, `(images * captions, patches)`.
    fused: Tch,
}

/// Some pairs. Each tensor holds the rows of [`DetachedBatch`] that belong to them.
pub(super) struct PairChunk {
    /// Images, `(pairs, tokens, dim)`.
    pub(super) images: Tch,
    /// Logits of the aggregation, `(pairs, patches, groups)`.
    pub(super) logits: Tch,
    /// Captions, `(pairs, length, dim)`.
    pub(super) captions: Tch,
    padding: Tch,
    counts: Tch,
    kept: Tch,
    fused: Tch,
}

impl<'a> DetachedBatch<'a> {
    /// Images `(images, tokens, dim)`, their logits, and words `(captions, length, dim)` that are not normalised, with the
    /// mask of their padding and their counts. `memory` is the approximate number of bytes for the pairs of a chunk.
    pub(super) fn new(
        config: &'a AlignmentConfig,
        memory: usize,
        images: Tch,
        logits: Tch,
        words: &Tch,
        padding: Tch,
        counts: Tch,
    ) -> Result<Self> {
        let mean = words.f_sum_dim_intlist(&[1i64][..], false, None)?.f_div(&counts.f_unsqueeze(1)?)?;
        let patches = patches(config, &images)?;
        let unit_patches = normalise(&patches)?.0.f_transpose(1, 2)?;
        let image_scores = normalise(&patches.f_mean_dim(&[1i64][..], true, None)?)?.0.f_bmm(&unit_patches)?;
        let scores = normalise(&mean)?.0.f_matmul(&unit_patches)?.f_add(&image_scores)?;
        drop(unit_patches);
        let scores = scores.f_reshape([-1, config.patches as i64])?;
        let (_, indices) = scores.f_topk(config.kept as i64, -1, true, false)?;
        let kept = scores.f_zeros_like()?.f_to_kind(Kind::Bool)?.f_scatter_value(-1, &indices, 1)?;
        let kept_f32 = kept.f_to_kind(Kind::Float)?;
        let dropped = kept_f32.f_mul_scalar(-1.0)?.f_add_scalar(1.0)?;
        let fused = scores.f_sub(&kept_f32.f_mul_scalar(SCORE_GAP)?)?.f_softmax(-1, None)?.f_mul(&dropped)?;
        // The softmax gives kept patches a small weight, which is removed here.
        let total = fused.f_sum_dim_intlist(&[-1i64][..], true, None)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        Ok(Self {
            fused: fused.f_div(&total)?,
            captions: normalise(words)?.0,
            config,
            memory,
            images,
            logits,
            padding,
            counts,
            kept,
        })
    }

    /// Pairs of a chunk, by the memory of a pair with its backward pass.
    pub(super) fn chunk_size(&self) -> usize {
        let AlignmentConfig { patches, groups, width, .. } = *self.config;
        let length = self.padding.size()[1] as usize;
        let values = 3 * self.config.tokens() * width
            + 5 * groups * patches
            + 6 * self.config.aligned_tokens() * (width + length)
            + 3 * length * width;
        (self.memory / (4 * values)).max(1)
    }

    /// The pairs of `images` and `captions`, two index tensors of the same length.
    pub(super) fn chunk(&self, images: &Tch, captions: &Tch) -> Result<PairChunk> {
        let pairs = images.f_mul_scalar(self.captions.size()[0])?.f_add(captions)?;
        Ok(PairChunk {
            images: self.images.f_index_select(0, images)?,
            logits: self.logits.f_index_select(0, images)?,
            captions: self.captions.f_index_select(0, captions)?,
            padding: self.padding.f_index_select(0, captions)?,
            counts: self.counts.f_index_select(0, captions)?,
            kept: self.kept.f_index_select(0, &pairs)?,
            fused: self.fused.f_index_select(0, &pairs)?,
        })
    }

    /// All similarities `(images, captions)`.
    pub(super) fn similarities(&self) -> Result<Tch> {
        let [images, captions] = [self.images.size()[0], self.captions.size()[0]];
        let pairs = Tch::f_arange(images * captions, (Kind::Int64, self.images.device()))?;
        let mut similarities = Vec::new();
        let chunk_size = self.chunk_size();
        for start in (0..images * captions).step_by(chunk_size) {
            let chunk = pairs.f_narrow(0, start, (images * captions - start).min(chunk_size as i64))?;
            let (image, caption) = (chunk.f_floor_divide_scalar(captions)?, chunk.f_remainder(captions)?);
            similarities.push(self.chunk(&image, &caption)?.similarities(self.config)?);
        }
        Ok(Tch::f_cat(&similarities, 0)?.f_reshape([images, captions])?)
    }
}

impl PairChunk {
    /// The same chunk with gradients for images, logits and words.
    pub(super) fn with_gradients(self) -> Result<Self> {
        let leaf = |tensor: Tch| tensor.f_set_requires_grad(true);
        let (images, logits, captions) = (leaf(self.images)?, leaf(self.logits)?, leaf(self.captions)?);
        Ok(Self { images, logits, captions, ..self })
    }

    /// Similarities `(pairs)`.
    pub(super) fn similarities(&self, config: &AlignmentConfig) -> Result<Tch> {
        let dropped = self.kept.f_logical_not()?.f_unsqueeze(1)?;
        let groups = self.logits.f_transpose(1, 2)?.f_masked_fill(&dropped, f64::NEG_INFINITY)?.f_softmax(-1, None)?;
        let weights = Tch::f_cat(&[groups, self.fused.f_unsqueeze(1)?], 1)?;
        let merged = weights.f_bmm(&patches(config, &self.images)?)?;
        let tokens = match config.has_class_token {
            true => Tch::f_cat(&[self.images.f_narrow(1, 0, 1)?, merged], 1)?,
            false => merged,
        };
        let cosines = normalise(&tokens)?.0.f_bmm(&self.captions.f_transpose(1, 2)?)?;
        // The leaky ReLU is monotonic, so it is applied to the maxima only.
        let word_mean = leaky_relu(&cosines.f_max_dim(1, false)?.0)?.f_masked_fill(&self.padding, 0.0)?;
        let word_mean = word_mean.f_sum_dim_intlist(&[1i64][..], false, None)?.f_div(&self.counts)?;
        let masked = cosines.f_masked_fill(&self.padding.f_unsqueeze(1)?, f64::NEG_INFINITY)?;
        let token_mean = leaky_relu(&masked.f_max_dim(2, false)?.0)?.f_mean_dim(&[1i64][..], false, None)?;
        Ok(word_mean.f_add(&token_mean)?)
    }
}

fn patches(config: &AlignmentConfig, images: &Tch) -> Result<Tch> {
    Ok(images.f_narrow(1, i64::from(config.has_class_token), config.patches as i64)?)
}
