//! Products of an image's patches with each other.

use super::{
    aligned::Aligned,
    groups::GroupSums,
    selection::{Mask, patches},
    simd::{Kernel, MOST_LANES, Simd},
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
}

/// Of the groups made of some patches with `factors`: their squared norms, `(stride)`, and twice the product of every
/// patch with them, `(patches, stride)`.
pub(super) struct GroupProducts<'a> {
    /// `(patches, stride)`, of which the first `groups` of a row are used.
    pub(super) factors: &'a [f32],
    /// Distance between rows of factors.
    pub(super) stride: usize,
    /// Number of groups.
    pub(super) groups: usize,
    /// Number of patches.
    pub(super) patches: usize,
    /// Products of all patches with each other.
    pub(super) products: &'a [f32],
    /// Distance between rows of products.
    pub(super) products_stride: usize,
    /// The patches of the groups.
    pub(super) members: &'a Mask,
}

impl Kernel for GroupProducts<'_> {
    type Output = (Vec<f32>, Aligned);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { factors, stride, patches: count, .. } = self;
        let kept: Vec<u32> = patches(self.members).map(|patch| patch as u32).collect();
        let mut products = Aligned::zeros(factors.len());
        let sums = GroupSums {
            factors,
            kept: &kept,
            patches: count,
            table: self.products,
            table_stride: self.products_stride,
            stride,
        };
        sums.write_all(simd, self.groups, count, &mut products);
        products.iter_mut().for_each(|product| *product *= 2.0);
        let mut squares = vec![0.0f64; stride];
        for patch in patches(self.members) {
            let rows = factors[patch * stride..].iter().zip(&products[patch * stride..]);
            squares.iter_mut().zip(rows).for_each(|(sum, (&factor, &product))| {
                *sum += 0.5 * f64::from(factor) * f64::from(product);
            });
        }
        (squares.iter().map(|&square| square as f32).collect(), products)
    }
}
