//! The alignment of one image with several captions, recorded or not.
//!
//! The algebra is that of [`crate::torch::similarity`], arranged so that it can be differentiated and that nothing of the
//! embeddings' width is made for a pair. The patches of an image are put into the order kept by every caption, kept by
//! some, kept by none. With `E` the exponentials of the logits, `G = X X^T` the products of the patches and `c` those that
//! every caption keeps, group `k` of a caption that keeps `c` and the patches `v` has
//!
//! - the products with the words `E_c P_c + E_v P_v`, where `P = X T^T` and the first part is the same for all captions,
//! - the squared norm `E_c G_cc E_c^T + 2 E_v G_vc E_c^T + E_v G_vv E_v^T`, where only the last is computed for each pair.
//!
//! So the less the captions differ in what they keep, the less there is to do: one caption alone has no `v` at all.
//! Selection has no gradient. Where a squared norm loses too many digits, the image is computed by the plain definition.

use tch::{Kind, Tensor as Tch};

use super::captions::CaptionSet;
use crate::{Result, retrieval::similarity::AlignmentConfig};

/// A squared norm below this share of the sum of its squared terms has lost too many digits.
const CANCELLATION: f64 = 16.0;
/// Squared norms below this are of factors that f32 can not hold squared.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64 * 1e8;
/// Square of the least norm that a vector is divided by.
const LEAST_SQUARE: f64 = 1e-24;
/// More than any two scores differ by: each is a sum of two cosines.
const APART: f64 = 10.0;
/// Less than any difference of logits leaves of an exponential.
const OUT: f64 = 1e9;

/// What captions keep of an image: `(captions, patches)`, the scores and 1 where a patch is kept.
pub(super) struct Selection {
    pub(super) scores: Tch,
    pub(super) kept: Tch,
}

impl Selection {
    /// From the tokens of an image `(tokens, width)` and the normalised means of the captions `(captions, width)`.
    pub(super) fn new(config: &AlignmentConfig, tokens: &Tch, means: &Tch) -> Result<Self> {
        let patches = tokens.f_narrow(0, i64::from(config.has_class_token), config.patches as i64)?;
        let across = normalise(&patches)?.f_transpose(0, 1)?;
        let own = normalise(&patches.f_mean_dim(&[0i64][..], true, None)?)?.f_matmul(&across)?;
        let scores = means.f_matmul(&across)?.f_add(&own)?;
        let (_, indices) = scores.f_topk(config.kept as i64, -1, true, false)?;
        let kept = scores.f_zeros_like()?.f_to_kind(Kind::Bool)?.f_scatter_value(-1, &indices, 1)?;
        Ok(Self { scores, kept })
    }
}

/// The patches of an image in the order kept by every caption, kept by some, kept by none.
pub(super) struct Order {
    /// Index of each patch in the image.
    places: Tch,
    /// How many every caption keeps.
    core: i64,
    /// How many some captions keep.
    varying: i64,
    /// `(captions, patches)`: 1 where a patch is kept.
    kept: Tch,
    /// `(captions, patches)`: the weights of the others in the fused patch.
    fused: Tch,
}

impl Order {
    pub(super) fn new(selection: &Selection) -> Result<Self> {
        let kept = selection.kept.f_to_kind(Kind::Float)?;
        let captions = kept.size()[0];
        let counts = selection.kept.f_sum_dim_intlist(&[0i64][..], false, Kind::Int64)?;
        let by_some = counts.f_gt(0)?;
        let by_all = counts.f_eq(captions)?;
        let class = by_some.f_to_kind(Kind::Int64)?.f_add(&by_all.f_to_kind(Kind::Int64)?)?;
        let places = class.f_argsort_stable(true, 0, true)?;
        let number = |mask: &Tch| Ok::<i64, crate::Error>(mask.f_sum(Kind::Int64)?.f_int64_value(&[])?);
        let core = number(&by_all)?;
        let kept = kept.f_index_select(1, &places)?;
        let scores = selection.scores.f_index_select(1, &places)?;
        let dropped = kept.f_mul_scalar(-1.0)?.f_add_scalar(1.0)?;
        let fused = scores.f_sub(&kept.f_mul_scalar(APART)?)?.f_softmax(-1, None)?.f_mul(&dropped)?;
        // Kept patches have weights that are small and not 0 before they are taken out.
        let total = fused.f_sum_dim_intlist(&[-1i64][..], true, None)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        Ok(Self { core, varying: number(&by_some)? - core, kept, fused: fused.f_div(&total)?, places })
    }

    /// Rows of the tokens, class token first where there is one, in this order.
    pub(super) fn rows(&self, config: &AlignmentConfig) -> Result<Tch> {
        if !config.has_class_token {
            return Ok(self.places.shallow_clone());
        }
        let first = self.places.f_narrow(0, 0, 1)?.f_zeros_like()?;
        Ok(Tch::f_cat(&[first, self.places.f_add_scalar(1)?], 0)?)
    }

    /// Index of each patch.
    pub(super) fn places(&self) -> &Tch {
        &self.places
    }
}

/// An image whose tokens `(tokens, width)` and logits `(patches, groups)` are in the order of `order`.
pub(super) struct Image<'a> {
    pub(super) config: &'a AlignmentConfig,
    pub(super) tokens: &'a Tch,
    pub(super) logits: &'a Tch,
    pub(super) order: &'a Order,
}

impl Image<'_> {
    /// Similarities with `captions`, `(captions)`.
    pub(super) fn similarities(&self, captions: &CaptionSet) -> Result<Tch> {
        let products = captions.words.f_matmul(&self.tokens.f_transpose(0, 1)?)?;
        let class_token = self.class_token(&products)?;
        let merged = match self.merged(&products, captions)? {
            Some(cosines) => cosines,
            None => self.merged_as_vectors(captions)?,
        };
        captions.finish(&match class_token {
            Some(class_token) => Tch::f_cat(&[class_token, merged], 1)?,
            None => merged,
        })
    }

    fn patches(&self) -> Result<Tch> {
        Ok(self.tokens.f_narrow(0, i64::from(self.config.has_class_token), self.config.patches as i64)?)
    }

    /// Cosines of the words with the class token, `(words, 1)`.
    fn class_token(&self, products: &Tch) -> Result<Option<Tch>> {
        if !self.config.has_class_token {
            return Ok(None);
        }
        let norm = self.tokens.f_narrow(0, 0, 1)?.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(1e-12)?;
        Ok(Some(products.f_narrow(1, 0, 1)?.f_div(&norm)?))
    }

    /// Cosines of the words with the groups and the fused patch, `(words, groups + 1)`; nothing where a norm has lost too
    /// many digits.
    fn merged(&self, products: &Tch, captions: &CaptionSet) -> Result<Option<Tch>> {
        let Order { core, varying, kept, fused, .. } = self.order;
        let (core, varying) = (*core, *varying);
        let groups = self.config.groups as i64;
        let patches = self.patches()?;
        let products = products.f_narrow(1, i64::from(self.config.has_class_token), self.config.patches as i64)?;
        let gram = patches.f_matmul(&patches.f_transpose(0, 1)?)?;
        // The largest cancels in the norm, so it has no gradient; it is that of the patches that a caption may keep.
        let used = self.logits.f_narrow(0, 0, core + varying)?;
        let factors = used.f_sub(&used.f_detach()?.f_amax([0i64], true)?)?.f_exp()?;

        let core_factors = factors.f_narrow(0, 0, core)?;
        let through = gram.f_narrow(1, 0, core)?.f_matmul(&core_factors)?;
        let own = through.f_narrow(0, 0, core)?.f_mul(&core_factors)?;
        let own = own.f_sum_dim_intlist(&[0i64][..], true, None)?;
        let mut of_groups = products.f_narrow(1, 0, core)?.f_matmul(&core_factors)?;
        let count = kept.size()[0];
        let mut squares = own.f_expand([count, groups], false)?;
        if varying > 0 {
            let mask = kept.f_narrow(1, core, varying)?;
            let factors = factors.f_narrow(0, core, varying)?;
            let cross = mask.f_matmul(&through.f_narrow(0, core, varying)?.f_mul(&factors)?)?.f_mul_scalar(2.0)?;
            let rows = factors.f_transpose(0, 1)?.f_unsqueeze(0)?.f_mul(&mask.f_unsqueeze(1)?)?;
            let rows = rows.f_reshape([count * groups, varying])?;
            let block = gram.f_narrow(0, core, varying)?.f_narrow(1, core, varying)?;
            let quadratic = rows.f_matmul(&block)?.f_mul(&rows)?.f_sum_dim_intlist(&[-1i64][..], false, None)?;
            squares = squares.f_add(&cross)?.f_add(&quadratic.f_reshape([count, groups])?)?;
            let masked = products.f_narrow(1, core, varying)?.f_mul(&mask.f_index_select(0, &captions.owners)?)?;
            of_groups = of_groups.f_add(&masked.f_matmul(&factors)?)?;
        }
        let of_fused = products.f_mul(&fused.f_index_select(0, &captions.owners)?)?;
        let of_fused = of_fused.f_sum_dim_intlist(&[-1i64][..], true, None)?;
        let fused_squares = fused.f_matmul(&gram)?.f_mul(fused)?.f_sum_dim_intlist(&[-1i64][..], true, None)?;
        let squares = Tch::f_cat(&[squares, fused_squares], 1)?;
        if self.doubtful(&factors, &gram, &squares)? {
            return Ok(None);
        }
        let inverse = squares.f_clamp_min(LEAST_SQUARE)?.f_rsqrt()?;
        let merged = Tch::f_cat(&[of_groups, of_fused], 1)?;
        Ok(Some(merged.f_mul(&captions.spread.f_matmul(&inverse)?)?))
    }

    /// Whether a squared norm can not be trusted.
    fn doubtful(&self, factors: &Tch, gram: &Tch, squares: &Tch) -> Result<bool> {
        let _guard = tch::no_grad_guard();
        let Order { kept, fused, core, varying, .. } = self.order;
        let diagonal = gram.f_diagonal(0, 0, 1)?.f_unsqueeze(1)?;
        let used = core + varying;
        let terms = factors.f_square()?.f_mul(&diagonal.f_narrow(0, 0, used)?)?;
        let floor = kept.f_narrow(1, 0, used)?.f_matmul(&terms)?.f_div_scalar(CANCELLATION)?.f_clamp_min(SMALLEST)?;
        let fused_floor = fused.f_square()?.f_matmul(&diagonal)?.f_div_scalar(CANCELLATION)?;
        let low = squares.f_lt_tensor(&Tch::f_cat(&[floor, fused_floor], 1)?)?;
        Ok(low.f_any()?.f_int64_value(&[])? != 0)
    }

    /// The same as [`merged`](Self::merged) by the plain definition.
    #[cold]
    fn merged_as_vectors(&self, captions: &CaptionSet) -> Result<Tch> {
        let Order { kept, fused, .. } = self.order;
        let patches = self.patches()?;
        let out = kept.f_add_scalar(-1.0)?.f_mul_scalar(OUT)?.f_unsqueeze(1)?;
        let weights = self.logits.f_transpose(0, 1)?.f_unsqueeze(0)?.f_add(&out)?.f_softmax(-1, None)?;
        let groups = weights.f_matmul(&patches)?;
        let fused = fused.f_matmul(&patches)?.f_unsqueeze(1)?;
        let tokens = normalise(&Tch::f_cat(&[groups, fused], 1)?)?;
        let of_caption = |(caption, span): (usize, &std::ops::Range<i64>)| {
            let words = captions.words.f_narrow(0, span.start, span.end - span.start)?;
            words.f_matmul(&tokens.f_select(0, caption as i64)?.f_transpose(0, 1)?)
        };
        let cosines = captions.spans.iter().enumerate().map(of_caption).collect::<Result<Vec<_>, _>>()?;
        Ok(Tch::f_cat(&cosines, 0)?)
    }
}

/// Rows divided by their Euclidean norms, these being at least 1e-12.
pub(super) fn normalise(rows: &Tch) -> Result<Tch> {
    let norms = rows.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(1e-12)?;
    Ok(rows.f_div(&norms)?)
}
