//! Tokens computed as vectors, by the definition and in f64: the way out where products of patches cancel too many
//! digits.

use tch::{Kind, Tensor as Tch};

use super::pairs::{Merged, Pairs, Weights};
use crate::Result;

/// Tokens that are computed together.
const TOGETHER: i64 = 256;

/// Less than any difference of logits leaves of an exponential.
const OUT: f64 = 1e30;

impl Pairs<'_> {
    /// Replaces the merged tokens at `places`, rows of (image, caption, token), and counts them.
    #[cold]
    pub(super) fn merge_as_vectors(&self, weights: &Weights, places: &Tch, merged: &mut Merged) -> Result<u64> {
        let count = places.size()[0];
        let images = places.f_select(1, 0)?.f_contiguous()?;
        for image in 0..self.images.tokens.size()[0] {
            let rows = images.f_eq(image)?.f_nonzero()?.f_reshape([-1])?;
            let places = places.f_index_select(0, &rows)?;
            for start in (0..places.size()[0]).step_by(TOGETHER as usize) {
                let length = TOGETHER.min(places.size()[0] - start);
                self.merge_some(weights, image, &places.f_narrow(0, start, length)?, merged)?;
            }
        }
        Ok(count as u64)
    }

    /// Likewise tokens of one image.
    fn merge_some(&self, weights: &Weights, image: i64, places: &Tch, merged: &mut Merged) -> Result<()> {
        let [captions, tokens] = [places.f_select(1, 1)?.f_contiguous()?, places.f_select(1, 2)?.f_contiguous()?];
        let of_captions = |tensor: &Tch| tensor.f_select(0, image)?.f_index_select(0, &captions);
        let groups = self.config.groups as i64;
        let in_fused = of_captions(&weights.fused)?.f_to_kind(Kind::Double)?;
        let kept = of_captions(&weights.kept)?.f_to_kind(Kind::Double)?;

        let logits = self.images.logits.f_select(0, image)?.f_transpose(0, 1)?;
        let logits = logits.f_index_select(0, &tokens.f_clamp_max(groups - 1)?)?.f_to_kind(Kind::Double)?;
        let logits = logits.f_add(&kept.f_add_scalar(-1.0)?.f_mul_scalar(OUT)?)?;
        let norms = self.images.norms.f_select(0, image)?.f_reshape([1, -1])?.f_to_kind(Kind::Double)?;
        let in_group = logits.f_sub(&logits.f_amax([-1i64], true)?)?.f_exp()?.f_mul(&norms)?;
        let is_fused = tokens.f_eq(groups)?.f_reshape([-1, 1])?;
        let weights = in_fused.f_where_self(&is_fused, &in_group)?;

        let first = i64::from(self.config.has_class_token);
        let patches = self.images.tokens.f_select(0, image)?.f_narrow(0, first, self.config.patches as i64)?;
        let vectors = weights.f_matmul(&patches.f_to_kind(Kind::Double)?)?;
        let norms = vectors.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(f64::MIN_POSITIVE)?;
        let words = self.captions.words.f_index_select(0, &captions)?.f_to_kind(Kind::Double)?;
        let cosines = words.f_bmm(&vectors.f_div(&norms)?.f_unsqueeze(2)?)?.f_squeeze_dim(2)?.f_to_kind(Kind::Float)?;

        let images = captions.f_full_like(image)?;
        let ones = cosines.f_select(1, 0)?.f_ones_like()?;
        let place = [Some(&images), Some(&tokens), Some(&captions)];
        let _ = merged.products.f_index_put_(&place, &cosines, false)?;
        let place = [Some(&images), Some(&captions), Some(&tokens)];
        let _ = merged.squares.f_index_put_(&place, &ones, false)?;
        Ok(())
    }
}
