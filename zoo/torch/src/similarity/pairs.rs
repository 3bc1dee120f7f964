//! The similarities of images and the captions of a block.

use tch::Tensor as Tch;

use super::{captions::CaptionBlock, images::DeviceImages, leaky};
use crate::Result;
use laps_align::similarity::{AlignmentConfig, Counts};

/// A squared norm below this share of the sum of its squared terms has lost too many digits.
const CANCELLATION: f64 = 16.0;

/// Squared norms of groups below this are of factors that f32 can not hold squared.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64 * 1e8;

/// More than any two scores differ by: each is a sum of two cosines.
pub(crate) const APART: f64 = 10.0;

/// What is compared.
pub(super) struct Pairs<'a> {
    pub(super) config: &'a AlignmentConfig,
    pub(super) images: &'a DeviceImages,
    pub(super) captions: &'a CaptionBlock,
}

/// Which patches go where, each `(images, captions, patches)`.
pub(super) struct Weights {
    /// 1 for a kept patch, 0 for another.
    pub(super) kept: Tch,
    /// Of a normalised patch in the fused one; 0 for a kept patch.
    pub(super) fused: Tch,
}

/// The merged tokens: the groups, then the fused patch.
pub(super) struct Merged {
    /// Their products with the words, and after them those of the class token, `(images, tokens, captions, length)`.
    pub(super) products: Tch,
    /// Their squared norms, `(images, captions, tokens)`.
    pub(super) squares: Tch,
}

impl Pairs<'_> {
    fn sizes(&self) -> [i64; 3] {
        [self.images.tokens.size()[0], self.captions.words.size()[0], self.captions.words.size()[1]]
    }

    fn patches(&self, tensor: &Tch) -> Result<Tch> {
        Ok(tensor.f_narrow(1, i64::from(self.config.has_class_token), self.config.patches as i64)?)
    }

    /// `(images, captions)`.
    pub(super) fn similarities(&self, counts: &mut Counts) -> Result<Tch> {
        let weights = self.select()?;
        let products = self.products(&weights)?;
        let (squares, doubtful) = self.squares(&weights)?;
        let mut merged = Merged { products, squares };
        let doubtful = doubtful.f_nonzero()?;
        if doubtful.numel() > 0 {
            counts.as_vectors += self.merge_as_vectors(&weights, &doubtful, &mut merged)?;
        }
        let Merged { products, mut squares } = merged;
        let inverse_norms = squares.f_clamp_min_(f64::from(f32::MIN_POSITIVE))?.f_rsqrt_()?;
        let merged = self.config.groups as i64 + 1;
        // In place: the class token's products after these are of unit length already.
        let _ = products.f_narrow(1, 0, merged)?.f_mul_(&inverse_norms.f_transpose(1, 2)?.f_unsqueeze(3)?)?;
        self.finish(products)
    }

    /// Which patches each caption keeps, and what the others weigh.
    fn select(&self) -> Result<Weights> {
        let [images, captions, _] = self.sizes();
        let with_mean = self.images.tokens.f_matmul(&self.captions.means.f_transpose(0, 1)?)?;
        let scores = self.patches(&with_mean.f_reshape([images, -1, captions])?)?.f_add(&self.images.scores)?;
        let scores = scores.f_transpose(1, 2)?.f_contiguous()?;
        let (_, indices) = scores.f_topk(self.config.kept as i64, -1, true, false)?;
        let kept = scores.f_zeros_like()?.f_scatter_value(-1, &indices, 1.0)?;
        let dropped = kept.f_mul_scalar(-1.0)?.f_add_scalar(1.0)?;
        let peak = scores.f_sub(&kept.f_mul_scalar(APART)?)?.f_amax([-1i64], true)?;
        let mut fused = scores.f_sub(&peak)?;
        // Kept patches, and all where none is dropped, weigh nothing; their exponentials stay finite.
        let mut fused = fused.f_exp_()?.f_mul_(&dropped)?;
        let fused = fused.f_mul_(&self.images.norms.f_transpose(1, 2)?)?;
        Ok(Weights { kept, fused })
    }

    /// Products of all tokens with the words.
    fn products(&self, weights: &Weights) -> Result<Tch> {
        let [images, captions, length] = self.sizes();
        let words = self.captions.words.f_reshape([captions * length, -1])?;
        let table = self.images.tokens.f_matmul(&words.f_transpose(0, 1)?)?;
        let table = table.f_reshape([images, -1, captions, length])?;
        let patches = self.patches(&table)?;
        let weigh = |weights: &Tch| patches.f_mul(&weights.f_transpose(1, 2)?.f_unsqueeze(3)?);
        let fused = weigh(&weights.fused)?.f_sum_dim_intlist(&[1i64][..], true, None)?;
        let kept = weigh(&weights.kept)?.f_reshape([images, -1, captions * length])?;
        let groups = self.images.factors.f_transpose(1, 2)?.f_bmm(&kept)?;
        let groups = groups.f_reshape([images, -1, captions, length])?;
        let mut parts = vec![groups, fused];
        if self.config.has_class_token {
            parts.push(table.f_narrow(1, 0, 1)?);
        }
        Ok(Tch::f_cat(&parts, 1)?)
    }

    /// Squared norms of the merged tokens, and which of them can not be trusted.
    fn squares(&self, weights: &Weights) -> Result<(Tch, Tch)> {
        let [images, captions, _] = self.sizes();
        let [patches, groups] = [self.config.patches as i64, self.config.groups as i64];
        let Weights { kept, fused } = weights;
        let half = kept.f_bmm(&self.images.quadratic)?.f_reshape([images * captions, groups, patches])?;
        let of_groups = half.f_bmm(&kept.f_reshape([images * captions, patches, 1])?)?;
        drop(half);
        let of_groups = of_groups.f_reshape([images, captions, groups])?;
        let terms = kept.f_bmm(&self.images.factors.f_square()?)?;
        let floor = terms.f_div_scalar(CANCELLATION)?.f_clamp_min(SMALLEST)?;

        let sum = |tensor: Tch| tensor.f_sum_dim_intlist(&[-1i64][..], true, None);
        let of_fused = sum(fused.f_bmm(&self.images.gram)?.f_mul_(fused)?)?;
        let fused_floor = sum(fused.f_square()?)?.f_div_scalar(CANCELLATION)?;
        let squares = Tch::f_cat(&[of_groups, of_fused], -1)?;
        let doubtful = squares.f_lt_tensor(&Tch::f_cat(&[floor, fused_floor], -1)?)?;
        Ok((squares, doubtful))
    }

    /// Mean over words of the largest cosine over tokens, plus mean over tokens of the largest over words. The leaky ReLU
    /// keeps order, so it is applied to the largest only.
    fn finish(&self, mut cosines: Tch) -> Result<Tch> {
        let padding = &self.captions.padding;
        let of_words = leaky(&cosines.f_amax([1i64], false)?)?.f_masked_fill_(padding, 0.0)?;
        let of_words = of_words.f_sum_dim_intlist(&[-1i64][..], false, None)?.f_div(&self.captions.counts)?;
        let of_tokens = cosines.f_masked_fill_(padding, f64::NEG_INFINITY)?.f_amax([-1i64], false)?;
        Ok(leaky(&of_tokens)?.f_mean_dim(&[1i64][..], false, None)?.f_add(&of_words)?)
    }
}
