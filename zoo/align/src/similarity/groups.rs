//! Sums over the patches that a caption keeps: products of the groups with the words, and norms of the groups.

use super::{
    config::{CANCELLATION, MIN_SQUARED_NORM},
    gram::Gram,
    images::PreparedImage,
    simd::Simd,
};

/// A squared norm below this fraction of the terms that it was derived from has lost too many digits.
const MIN_DERIVED_FRACTION: f32 = 0.125;

/// Products of groups and words, `(words, stride)`.
pub(super) struct GroupSums<'a> {
    /// Weights of the patches in the groups, `(patches, stride)`.
    pub(super) factors: &'a [f32],
    /// The kept patches.
    pub(super) kept: &'a [u32],
    /// Number of patches of the image.
    pub(super) patches: usize,
    /// Products of words and patches; each row starts with the first patch of the image.
    pub(super) table: &'a [f32],
    /// Distance between rows of `table`.
    pub(super) table_stride: usize,
    /// Distance between rows of the weights and of the output.
    pub(super) stride: usize,
}

impl GroupSums<'_> {
    /// Writes `words` rows.
    #[inline(always)]
    pub(super) fn write_all<S: Simd>(&self, simd: S, groups: usize, words: usize, output: &mut [f32]) {
        let vectors = groups.div_ceil(S::LANES);
        for first in (0..vectors).step_by(3) {
            match vectors - first {
                1 => self.write::<S, 1>(simd, first, words, output),
                2 => self.write::<S, 2>(simd, first, words, output),
                _ => self.write::<S, 3>(simd, first, words, output),
            }
        }
    }

    /// Writes `V` vectors from `first` on of each of `words` rows.
    #[inline(always)]
    fn write<S: Simd, const V: usize>(&self, simd: S, first: usize, words: usize, output: &mut [f32]) {
        // The number of sums that fit into registers together with the factors.
        let max_words = match V {
            1 => 8,
            2 if S::REGISTERS < 32 => 6,
            _ if S::REGISTERS < 32 => 3,
            _ => 8,
        };
        let tiles = words.div_ceil(max_words);
        for tile in 0..tiles {
            let start = tile * words / tiles;
            let output = &mut output[start * self.stride + first * S::LANES..];
            match (tile + 1) * words / tiles - start {
                1 => self.tile::<S, V, 1>(simd, first, start, output),
                2 => self.tile::<S, V, 2>(simd, first, start, output),
                3 => self.tile::<S, V, 3>(simd, first, start, output),
                4 => self.tile::<S, V, 4>(simd, first, start, output),
                5 => self.tile::<S, V, 5>(simd, first, start, output),
                6 => self.tile::<S, V, 6>(simd, first, start, output),
                7 => self.tile::<S, V, 7>(simd, first, start, output),
                _ => self.tile::<S, V, 8>(simd, first, start, output),
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const V: usize, const W: usize>(&self, simd: S, first: usize, start: usize, output: &mut [f32]) {
        if V * W > S::REGISTERS * 3 / 4 {
            return;
        }
        let mut rows = [&self.table[..0]; W];
        for (word, row) in rows.iter_mut().enumerate() {
            *row = &self.table[(start + word) * self.table_stride..][..self.patches];
        }
        let factors = &self.factors[first * S::LANES..];
        let mut sums = [[simd.splat(0.0); V]; W];
        for &patch in self.kept {
            let patch = patch as usize;
            let row = &factors[patch * self.stride..][..V * S::LANES];
            let row = load::<S, V>(simd, row);
            for word in 0..W {
                let product = simd.splat(rows[word][patch]);
                for vector in 0..V {
                    sums[word][vector] = simd.mul_add(product, row[vector], sums[word][vector]);
                }
            }
        }
        for (word, sums) in sums.iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                simd.store(sum, &mut output[word * self.stride + vector * S::LANES..]);
            }
        }
    }
}

/// Computes the squared norms of all groups.
pub(super) struct GroupSquares<'a> {
    /// The image.
    pub(super) image: &'a PreparedImage,
    /// Patches, ascending.
    pub(super) list: &'a [u32],
    /// Weights of the listed patches, `(listed patches, stride)`; negative for a patch that is removed from the base.
    pub(super) factors: &'a [f32],
    /// Distance between rows of the weights.
    pub(super) stride: usize,
    /// The groups that the list is added to.
    pub(super) base: SquareBase,
}

/// Groups that a list of patches is added to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SquareBase {
    /// Empty groups.
    Empty,
    /// The groups of the image's reference selection.
    Reference,
}

impl GroupSquares<'_> {
    /// Writes `V` vectors of squared norms from `first` on. Bit `i` of the result is set if value `i` of them has lost too many
    /// digits.
    #[inline(always)]
    pub(super) fn write<S: Simd, const V: usize>(&self, simd: S, first: usize, output: &mut [f32]) -> u128 {
        let zero = [simd.splat(0.0); V];
        let [mut total, mut cross, mut terms] = [zero; 3];
        let gram: &Gram = &self.image.gram;
        let mut place = 0;
        while place < self.list.len() {
            let pair = place + 1 < self.list.len();
            let patches = [self.list[place] as usize, self.list[if pair { place + 1 } else { place }] as usize];
            let rows = [gram.row(patches[0]), gram.row(patches[1])];
            let [mut upper, mut lower] = [zero; 2];
            for (other, &patch) in self.list[..place].iter().enumerate() {
                let factors = self.factors_at::<S, V>(simd, first, other);
                let products = [simd.splat(rows[0][patch as usize]), simd.splat(rows[1][patch as usize])];
                for vector in 0..V {
                    upper[vector] = simd.mul_add(products[0], factors[vector], upper[vector]);
                    lower[vector] = simd.mul_add(products[1], factors[vector], lower[vector]);
                }
            }
            let own = self.factors_at::<S, V>(simd, first, place);
            let next = if pair { self.factors_at::<S, V>(simd, first, place + 1) } else { zero };
            let diagonal = simd.splat(rows[0][patches[0]]);
            let below = simd.splat(rows[1][patches[0]]);
            let next_diagonal = simd.splat(rows[1][patches[1]]);
            for vector in 0..V {
                let inner = simd.mul_add(diagonal, own[vector], upper[vector]);
                total[vector] = simd.mul_add(own[vector], inner, total[vector]);
                let inner = simd.mul_add(below, own[vector], lower[vector]);
                let inner = simd.mul_add(next_diagonal, next[vector], inner);
                total[vector] = simd.mul_add(next[vector], inner, total[vector]);
                terms[vector] = simd.mul_add(own[vector], own[vector], terms[vector]);
                terms[vector] = simd.mul_add(next[vector], next[vector], terms[vector]);
            }
            if self.base == SquareBase::Reference {
                for (patch, factors) in patches.into_iter().zip([own, next]) {
                    let row = &self.image.reference_products[patch * self.stride + first * S::LANES..];
                    for vector in 0..V {
                        let product = simd.load(&row[vector * S::LANES..]);
                        cross[vector] = simd.mul_add(factors[vector], product, cross[vector]);
                    }
                }
            }
            place += 2;
        }
        let mut inexact = 0;
        for vector in 0..V {
            let start = (first + vector) * S::LANES;
            let [square, floor] = match self.base {
                SquareBase::Empty => [total[vector], simd.mul(terms[vector], simd.splat(1.0 / CANCELLATION))],
                SquareBase::Reference => {
                    let reference = simd.load(&self.image.reference_squares[start..]);
                    let sum = simd.add(reference, total[vector]);
                    let floor = simd.load(&self.image.square_floor[start..]);
                    let derived_floor = simd.mul(sum, simd.splat(MIN_DERIVED_FRACTION));
                    [simd.add(sum, cross[vector]), simd.max(derived_floor, floor)]
                }
            };
            let floor = simd.max(floor, simd.splat(MIN_SQUARED_NORM));
            inexact |= u128::from(simd.greater(floor, square)) << (vector * S::LANES);
            simd.store(square, &mut output[start..]);
        }
        inexact
    }

    #[inline(always)]
    fn factors_at<S: Simd, const V: usize>(&self, simd: S, first: usize, place: usize) -> [S::Vector; V] {
        load(simd, &self.factors[place * self.stride + first * S::LANES..][..V * S::LANES])
    }
}

/// Loads `V` vectors. A loop and not a closure: closures may not be compiled for the instruction set of the caller.
#[inline(always)]
pub(super) fn load<S: Simd, const V: usize>(simd: S, from: &[f32]) -> [S::Vector; V] {
    let mut vectors = [simd.splat(0.0); V];
    for (vector, slot) in vectors.iter_mut().enumerate() {
        *slot = simd.load(&from[vector * S::LANES..]);
    }
    vectors
}
