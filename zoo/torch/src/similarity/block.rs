//! Similarities of images with a block of captions.

use tch::Tensor as Tch;

use super::{
    captions::CaptionBlock,
    images::{DeviceImages, patches},
    leaky_relu,
};
use crate::Result;
use laps_align::similarity::{AlignmentConfig, CANCELLATION, MIN_SQUARED_NORM, PairCounts};

/// Larger than the difference of any two scores: a score is the sum of two cosines.
const SCORE_GAP: f64 = 10.0;

/// The inputs of one block.
pub(super) struct BlockComparison<'a> {
    pub(super) config: &'a AlignmentConfig,
    pub(super) images: &'a DeviceImages,
    pub(super) captions: &'a CaptionBlock,
}

/// Weights of the patches in the merged tokens, each `(images, captions, patches)`.
pub(super) struct PatchWeights {
    /// 1 for a kept patch, 0 for a dropped one.
    pub(super) kept: Tch,
    /// Weight of a normalised patch in the fused patch; 0 for a kept patch.
    pub(super) fused: Tch,
}

/// The merged tokens: the groups, then the fused patch.
pub(super) struct MergedTokens {
    /// Products with the words, followed by those of the class token, `(images, tokens, captions, length)`.
    pub(super) products: Tch,
    /// Squared norms, `(images, captions, tokens)`.
    pub(super) squares: Tch,
}

impl BlockComparison<'_> {
    fn sizes(&self) -> [i64; 3] {
        [self.images.tokens.size()[0], self.captions.words.size()[0], self.captions.words.size()[1]]
    }

    /// Similarities `(images, captions)`.
    pub(super) fn similarities(&self, counts: &mut PairCounts) -> Result<Tch> {
        let weights = self.select()?;
        let products = self.products(&weights)?;
        let (squares, inexact) = self.squares(&weights)?;
        let mut merged = MergedTokens { products, squares };
        let inexact = inexact.f_nonzero()?;
        if inexact.numel() > 0 {
            counts.as_vectors += self.merge_as_vectors(&weights, &inexact, &mut merged)?;
        }
        let MergedTokens { products, mut squares } = merged;
        let inverse_norms = squares.f_clamp_min_(f64::from(f32::MIN_POSITIVE))?.f_rsqrt_()?;
        let merged = self.config.groups as i64 + 1;
        // In place: the products of the class token, which come last, are normalised already.
        let _ = products.f_narrow(1, 0, merged)?.f_mul_(&inverse_norms.f_transpose(1, 2)?.f_unsqueeze(3)?)?;
        self.max_mean(products)
    }

    /// Selects the patches that each caption keeps, and computes the weights of the dropped ones.
    fn select(&self) -> Result<PatchWeights> {
        let [images, captions, _] = self.sizes();
        let with_mean = self.images.tokens.f_matmul(&self.captions.means.f_transpose(0, 1)?)?;
        let scores = patches(self.config, &with_mean.f_reshape([images, -1, captions])?)?.f_add(&self.images.scores)?;
        let scores = scores.f_transpose(1, 2)?.f_contiguous()?;
        let (_, indices) = scores.f_topk(self.config.kept as i64, -1, true, false)?;
        let kept = scores.f_zeros_like()?.f_scatter_value(-1, &indices, 1.0)?;
        let dropped = kept.f_mul_scalar(-1.0)?.f_add_scalar(1.0)?;
        let peak = scores.f_sub(&kept.f_mul_scalar(SCORE_GAP)?)?.f_amax([-1i64], true)?;
        let mut fused = scores.f_sub(&peak)?;
        // Kept patches get weight 0, and so do all patches if none is dropped; their exponentials stay finite.
        let mut fused = fused.f_exp_()?.f_mul_(&dropped)?;
        let fused = fused.f_mul_(&self.images.norms.f_transpose(1, 2)?)?;
        Ok(PatchWeights { kept, fused })
    }

    /// Products of all tokens with the words, `(images, tokens, captions, length)`.
    fn products(&self, weights: &PatchWeights) -> Result<Tch> {
        let [images, captions, length] = self.sizes();
        let words = self.captions.words.f_reshape([captions * length, -1])?;
        let table = self.images.tokens.f_matmul(&words.f_transpose(0, 1)?)?;
        let table = table.f_reshape([images, -1, captions, length])?;
        let patch_products = patches(self.config, &table)?;
        let weighted = |weights: &Tch| patch_products.f_mul(&weights.f_transpose(1, 2)?.f_unsqueeze(3)?);
        let fused = weighted(&weights.fused)?.f_sum_dim_intlist(&[1i64][..], true, None)?;
        let kept = weighted(&weights.kept)?.f_reshape([images, -1, captions * length])?;
        let groups = self.images.factors.f_transpose(1, 2)?.f_bmm(&kept)?;
        let groups = groups.f_reshape([images, -1, captions, length])?;
        let mut tokens = vec![groups, fused];
        if self.config.has_class_token {
            tokens.push(table.f_narrow(1, 0, 1)?);
        }
        Ok(Tch::f_cat(&tokens, 1)?)
    }

    /// Squared norms of the merged tokens, and a mask of those that have lost too many digits.
    fn squares(&self, weights: &PatchWeights) -> Result<(Tch, Tch)> {
        let [images, captions, _] = self.sizes();
        let [patch_count, groups] = [self.config.patches as i64, self.config.groups as i64];
        let PatchWeights { kept, fused } = weights;
        let half = kept.f_bmm(&self.images.quadratic)?.f_reshape([images * captions, groups, patch_count])?;
        let group_squares = half.f_bmm(&kept.f_reshape([images * captions, patch_count, 1])?)?;
        drop(half);
        let group_squares = group_squares.f_reshape([images, captions, groups])?;
        let terms = kept.f_bmm(&self.images.factors.f_square()?)?;
        let group_floor = terms.f_div_scalar(f64::from(CANCELLATION))?.f_clamp_min(f64::from(MIN_SQUARED_NORM))?;

        let sum = |tensor: Tch| tensor.f_sum_dim_intlist(&[-1i64][..], true, None);
        let fused_square = sum(fused.f_bmm(&self.images.gram)?.f_mul_(fused)?)?;
        let fused_floor = sum(fused.f_square()?)?.f_div_scalar(f64::from(CANCELLATION))?;
        let squares = Tch::f_cat(&[group_squares, fused_square], -1)?;
        let inexact = squares.f_lt_tensor(&Tch::f_cat(&[group_floor, fused_floor], -1)?)?;
        Ok((squares, inexact))
    }

    /// Mean over words of the maximum over tokens, plus mean over tokens of the maximum over words. The leaky ReLU is
    /// monotonic, so it is applied to the maxima only.
    fn max_mean(&self, mut cosines: Tch) -> Result<Tch> {
        let padding = &self.captions.padding;
        let word_mean = leaky_relu(&cosines.f_amax([1i64], false)?)?.f_masked_fill_(padding, 0.0)?;
        let word_mean = word_mean.f_sum_dim_intlist(&[-1i64][..], false, None)?.f_div(&self.captions.counts)?;
        let token_maxima = cosines.f_masked_fill_(padding, f64::NEG_INFINITY)?.f_amax([-1i64], false)?;
        Ok(leaky_relu(&token_maxima)?.f_mean_dim(&[1i64][..], false, None)?.f_add(&word_mean)?)
    }
}
