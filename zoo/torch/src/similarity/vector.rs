//! Merged tokens computed as vectors, by the definition and in f64. This is the fallback where products of patches cancel
//! too many digits.

use tch::{Kind, Tensor as Tch};

use super::{
    block::{BlockComparison, MergedTokens, PatchWeights},
    images::patches,
};
use crate::Result;

/// Tokens that are computed at once.
const CHUNK_SIZE: i64 = 256;

/// Subtracted from the logits of dropped patches, so that their exponentials are 0.
const MASKED_LOGIT: f64 = 1e30;

impl BlockComparison<'_> {
    /// Replaces the merged tokens at `indices`, rows of (image, caption, token). Returns their number.
    #[cold]
    pub(super) fn merge_as_vectors(
        &self,
        weights: &PatchWeights,
        indices: &Tch,
        merged: &mut MergedTokens,
    ) -> Result<u64> {
        let count = indices.size()[0];
        let images = indices.f_select(1, 0)?.f_contiguous()?;
        for image in 0..self.images.tokens.size()[0] {
            let rows = images.f_eq(image)?.f_nonzero()?.f_reshape([-1])?;
            let indices = indices.f_index_select(0, &rows)?;
            for start in (0..indices.size()[0]).step_by(CHUNK_SIZE as usize) {
                let length = CHUNK_SIZE.min(indices.size()[0] - start);
                self.merge_chunk(weights, image, &indices.f_narrow(0, start, length)?, merged)?;
            }
        }
        Ok(count as u64)
    }

    /// Replaces some merged tokens of one image.
    fn merge_chunk(&self, weights: &PatchWeights, image: i64, indices: &Tch, merged: &mut MergedTokens) -> Result<()> {
        let [captions, tokens] = [indices.f_select(1, 1)?.f_contiguous()?, indices.f_select(1, 2)?.f_contiguous()?];
        let of_captions = |tensor: &Tch| tensor.f_select(0, image)?.f_index_select(0, &captions);
        let groups = self.config.groups as i64;
        let fused_weights = of_captions(&weights.fused)?.f_to_kind(Kind::Double)?;
        let kept = of_captions(&weights.kept)?.f_to_kind(Kind::Double)?;

        let logits = self.images.logits.f_select(0, image)?.f_transpose(0, 1)?;
        let logits = logits.f_index_select(0, &tokens.f_clamp_max(groups - 1)?)?.f_to_kind(Kind::Double)?;
        let logits = logits.f_add(&kept.f_add_scalar(-1.0)?.f_mul_scalar(MASKED_LOGIT)?)?;
        let norms = self.images.norms.f_select(0, image)?.f_reshape([1, -1])?.f_to_kind(Kind::Double)?;
        let group_weights = logits.f_sub(&logits.f_amax([-1i64], true)?)?.f_exp()?.f_mul(&norms)?;
        let is_fused = tokens.f_eq(groups)?.f_reshape([-1, 1])?;
        let weights = fused_weights.f_where_self(&is_fused, &group_weights)?;

        let unit_patches = patches(self.config, &self.images.tokens.f_narrow(0, image, 1)?)?.f_squeeze_dim(0)?;
        let vectors = weights.f_matmul(&unit_patches.f_to_kind(Kind::Double)?)?;
        let norms = vectors.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(f64::MIN_POSITIVE)?;
        let words = self.captions.words.f_index_select(0, &captions)?.f_to_kind(Kind::Double)?;
        let cosines = words.f_bmm(&vectors.f_div(&norms)?.f_unsqueeze(2)?)?.f_squeeze_dim(2)?.f_to_kind(Kind::Float)?;

        let images = captions.f_full_like(image)?;
        let ones = cosines.f_select(1, 0)?.f_ones_like()?;
        let index = [Some(&images), Some(&tokens), Some(&captions)];
        let _ = merged.products.f_index_put_(&index, &cosines, false)?;
        let index = [Some(&images), Some(&captions), Some(&tokens)];
        let _ = merged.squares.f_index_put_(&index, &ones, false)?;
        Ok(())
    }
}
