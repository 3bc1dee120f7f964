//! The Gram matrix of an image: products of its patches.

use super::{
    aligned::AlignedVec,
    groups::GroupSums,
    selection::{Mask, patches},
    simd::{Kernel, MAX_LANES, Simd},
};

/// Lower triangle of the products of normalised patches: twice the product left of the diagonal, the product on the
/// diagonal, and zeros up to a whole vector right of it. A quadratic form over it visits each pair of patches once.
#[derive(Debug)]
pub(super) struct Gram {
    values: AlignedVec,
}

/// Offset of a row. Row `16 a + b` follows 16 rows of each of the lengths 16, 32, ..., `16 a`.
#[inline(always)]
fn offset(row: usize) -> usize {
    let [full, rest] = [row / MAX_LANES, row % MAX_LANES];
    MAX_LANES * (full + 1) * (MAX_LANES / 2 * full + rest)
}

impl Gram {
    /// From all products, `(patches, stride)`.
    pub(super) fn new(products: &[f32], stride: usize, patches: usize) -> Self {
        let mut values = AlignedVec::zeros(offset(patches));
        for (row, products) in products.chunks_exact(stride).enumerate() {
            let to = &mut values[offset(row)..][..=row];
            to.iter_mut().zip(products).for_each(|(slot, product)| *slot = 2.0 * product);
            to[row] = products[row];
        }
        Self { values }
    }

    pub(super) fn bytes(patches: usize) -> usize {
        AlignedVec::bytes(offset(patches))
    }

    /// The row of a patch, up to the end of the vector that contains the diagonal.
    #[inline(always)]
    pub(super) fn row(&self, patch: usize) -> &[f32] {
        &self.values[offset(patch)..offset(patch + 1)]
    }
}

/// Computes, for groups of the patches `members`, their squared norms `(stride)` and twice the product of every patch with
/// every group `(patches, stride)`.
pub(super) struct GroupProducts<'a> {
    /// Weights of the patches in the groups, `(patches, stride)`; the first `groups` values of a row are used.
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
    /// The patches that form the groups.
    pub(super) members: &'a Mask,
}

impl Kernel for GroupProducts<'_> {
    type Output = (Vec<f32>, AlignedVec);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { factors, stride, patches: count, .. } = self;
        let kept: Vec<u32> = patches(self.members).map(|patch| patch as u32).collect();
        let mut products = AlignedVec::zeros(factors.len());
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
