//! Similarities of pairs of an image and a caption, recorded or not.
//!
//! Many pairs are computed together by the plain definition of the alignment, each with a copy of its image and its caption:
//! a GPU has more use for a few large products than for less to compute. So pairs take memory, and only so many are
//! computed together as fit. Selection has no gradient.

use tch::{Kind, Tensor as Tch};

use crate::{
    Result,
    similarity::{APART, leaky, normalise},
};
use laps_align::similarity::AlignmentConfig;

/// Images and captions of a batch without their history, and what each caption keeps of each image.
pub(super) struct Batch<'a> {
    config: &'a AlignmentConfig,
    memory: usize,
    /// `(images, tokens, width)`, the class token first where there is one.
    pub(super) images: Tch,
    /// Of the aggregation, `(images, patches, groups)`.
    pub(super) logits: Tch,
    /// Normalised words, 0 beyond the last, `(captions, length, width)`.
    pub(super) captions: Tch,
    /// Where there is no word, `(captions, length)`.
    padding: Tch,
    /// Words, `(captions)`.
    counts: Tch,
    /// Which patches a pair keeps, `(images * captions, patches)`.
    kept: Tch,
    /// What the others weigh in the fused patch, 0 for those that are kept, `(images * captions, patches)`.
    fused: Tch,
}

/// Some pairs, each with its own image and caption: rows of the tensors of [`Batch`].
pub(super) struct Chunk {
    /// Of the images.
    pub(super) images: Tch,
    /// Of their logits.
    pub(super) logits: Tch,
    /// Of the captions.
    pub(super) captions: Tch,
    padding: Tch,
    counts: Tch,
    kept: Tch,
    fused: Tch,
}

impl<'a> Batch<'a> {
    /// From images `(images, tokens, width)`, their logits, and words `(captions, length, width)` as they are, of which
    /// `padding` says where there is none. `memory` is about how many bytes the pairs that are computed together may take.
    pub(super) fn new(
        (config, memory): (&'a AlignmentConfig, usize),
        [images, logits, words]: [Tch; 3],
        padding: Tch,
        counts: Tch,
    ) -> Result<Self> {
        let mean = words.f_sum_dim_intlist(&[1i64][..], false, None)?.f_div(&counts.f_unsqueeze(1)?)?;
        let patches = patches(config, &images)?;
        let across = normalise(&patches)?.0.f_transpose(1, 2)?;
        let own = normalise(&patches.f_mean_dim(&[1i64][..], true, None)?)?.0.f_bmm(&across)?;
        let scores = normalise(&mean)?.0.f_matmul(&across)?.f_add(&own)?;
        drop(across);
        let scores = scores.f_reshape([-1, config.patches as i64])?;
        let (_, indices) = scores.f_topk(config.kept as i64, -1, true, false)?;
        let kept = scores.f_zeros_like()?.f_to_kind(Kind::Bool)?.f_scatter_value(-1, &indices, 1)?;
        let number = kept.f_to_kind(Kind::Float)?;
        let dropped = number.f_mul_scalar(-1.0)?.f_add_scalar(1.0)?;
        let fused = scores.f_sub(&number.f_mul_scalar(APART)?)?.f_softmax(-1, None)?.f_mul(&dropped)?;
        // Kept patches have weights that are small and not 0 before they are taken out.
        let total = fused.f_sum_dim_intlist(&[-1i64][..], true, None)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        Ok(Self {
            fused: fused.f_div(&total)?,
            captions: normalise(&words)?.0,
            config,
            memory,
            images,
            logits,
            padding,
            counts,
            kept,
        })
    }

    /// How many pairs are computed together, by what they hold with the way back.
    pub(super) fn together(&self) -> usize {
        let AlignmentConfig { patches, groups, width, .. } = *self.config;
        let length = self.padding.size()[1] as usize;
        let numbers = 3 * self.config.tokens() * width
            + 5 * groups * patches
            + 6 * self.config.aligned_tokens() * (width + length)
            + 3 * length * width;
        (self.memory / (4 * numbers)).max(1)
    }

    /// Pairs of image and caption.
    pub(super) fn chunk(&self, images: &Tch, captions: &Tch) -> Result<Chunk> {
        let places = images.f_mul_scalar(self.captions.size()[0])?.f_add(captions)?;
        Ok(Chunk {
            images: self.images.f_index_select(0, images)?,
            logits: self.logits.f_index_select(0, images)?,
            captions: self.captions.f_index_select(0, captions)?,
            padding: self.padding.f_index_select(0, captions)?,
            counts: self.counts.f_index_select(0, captions)?,
            kept: self.kept.f_index_select(0, &places)?,
            fused: self.fused.f_index_select(0, &places)?,
        })
    }

    /// All similarities, `(images, captions)`.
    pub(super) fn similarities(&self) -> Result<Tch> {
        let [images, captions] = [self.images.size()[0], self.captions.size()[0]];
        let all = Tch::f_arange(images * captions, (Kind::Int64, self.images.device()))?;
        let mut found = Vec::new();
        let together = self.together();
        for start in (0..images * captions).step_by(together) {
            let some = all.f_narrow(0, start, (images * captions - start).min(together as i64))?;
            let (image, caption) = (some.f_floor_divide_scalar(captions)?, some.f_remainder(captions)?);
            found.push(self.chunk(&image, &caption)?.similarities(self.config)?);
        }
        Ok(Tch::f_cat(&found, 0)?.f_reshape([images, captions])?)
    }
}

impl Chunk {
    /// The same with images, logits and words that record.
    pub(super) fn recorded(self) -> Result<Self> {
        let record = |tensor: Tch| tensor.f_set_requires_grad(true);
        let (images, logits, captions) = (record(self.images)?, record(self.logits)?, record(self.captions)?);
        Ok(Self { images, logits, captions, ..self })
    }

    /// `(pairs)`.
    pub(super) fn similarities(&self, config: &AlignmentConfig) -> Result<Tch> {
        let out = self.kept.f_logical_not()?.f_unsqueeze(1)?;
        let in_groups = self.logits.f_transpose(1, 2)?.f_masked_fill(&out, f64::NEG_INFINITY)?.f_softmax(-1, None)?;
        let weights = Tch::f_cat(&[in_groups, self.fused.f_unsqueeze(1)?], 1)?;
        let merged = weights.f_bmm(&patches(config, &self.images)?)?;
        let tokens = match config.has_class_token {
            true => Tch::f_cat(&[self.images.f_narrow(1, 0, 1)?, merged], 1)?,
            false => merged,
        };
        let cosines = normalise(&tokens)?.0.f_bmm(&self.captions.f_transpose(1, 2)?)?;
        // The leaky ReLU keeps order, so it is applied to the largest only.
        let of_words = leaky(&cosines.f_max_dim(1, false)?.0)?.f_masked_fill(&self.padding, 0.0)?;
        let of_words = of_words.f_sum_dim_intlist(&[1i64][..], false, None)?.f_div(&self.counts)?;
        let of_tokens = cosines.f_masked_fill(&self.padding.f_unsqueeze(1)?, f64::NEG_INFINITY)?.f_max_dim(2, false)?;
        let of_tokens = leaky(&of_tokens.0)?.f_mean_dim(&[1i64][..], false, None)?;
        Ok(of_words.f_add(&of_tokens)?)
    }
}

fn patches(config: &AlignmentConfig, images: &Tch) -> Result<Tch> {
    Ok(images.f_narrow(1, i64::from(config.has_class_token), config.patches as i64)?)
}
