//! Products of an image's patches with each other.

use super::{
    aligned::Aligned,
    selection::{Mask, patches},
    simd::MOST_LANES,
};

/// The lower triangle of the products of normalised patches: twice the product left of the diagonal, the product on
/// it, zeros up to a whole vector right of it. So a sum over pairs of patches meets each pair once.
#[derive(Debug)]
pub(super) struct Gram {
    values: Aligned,
}

/// Where a row begins: row `16 a + b` comes after rows of 16, ..., 32, ... entries, 16 rows of each length.
#[inline(always)]
fn offset(row: usize) -> usize {
    let [full, rest] = [row / MOST_LANES, row % MOST_LANES];
    MOST_LANES * (full + 1) * (MOST_LANES / 2 * full + rest)
}

impl Gram {
    /// From all products, `(patches, stride)`.
    pub(super) fn new(products: &[f32], stride: usize, patches: usize) -> Self {
        let mut values = Aligned::zeros(offset(patches));
        for (row, products) in products.chunks_exact(stride).enumerate() {
            let to = &mut values[offset(row)..][..=row];
            to.iter_mut().zip(products).for_each(|(slot, product)| *slot = 2.0 * product);
            to[row] = products[row];
        }
        Self { values }
    }

    pub(super) fn bytes(patches: usize) -> usize {
        Aligned::bytes(offset(patches))
    }

    /// The row of a patch, up to a whole vector after the diagonal.
    #[inline(always)]
    pub(super) fn row(&self, patch: usize) -> &[f32] {
        &self.values[offset(patch)..offset(patch + 1)]
    }

    fn twice(&self, left: usize, right: usize) -> f32 {
        let value = self.values[offset(left.max(right)) + left.min(right)];
        if left == right { 2.0 * value } else { value }
    }

    /// Of the groups made of the patches of `mask` with `factors` `(patches, stride)`: their squared norms, `(stride)`,
    /// and twice the product of every patch with them, `(patches, stride)`.
    pub(super) fn group_products(&self, factors: &[f32], stride: usize, mask: &Mask) -> (Vec<f32>, Aligned) {
        let mut products = Aligned::zeros(factors.len());
        for (patch, row) in products.chunks_exact_mut(stride).enumerate() {
            for other in patches(mask) {
                let product = self.twice(patch, other);
                let factors = &factors[other * stride..][..stride];
                row.iter_mut().zip(factors).for_each(|(sum, factor)| *sum += product * factor);
            }
        }
        let mut squares = vec![0.0f64; stride];
        for patch in patches(mask) {
            let rows = factors[patch * stride..].iter().zip(&products[patch * stride..]);
            squares.iter_mut().zip(rows).for_each(|(sum, (&factor, &product))| {
                *sum += 0.5 * f64::from(factor) * f64::from(product);
            });
        }
        (squares.iter().map(|&square| square as f32).collect(), products)
    }
}
