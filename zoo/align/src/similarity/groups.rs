//! Per-pair sums over the patches that a caption keeps: products of the groups with the words, norms of the groups.

use super::{config::CANCELLATION, gram::Gram, images::PreparedImage, simd::Simd};

/// A squared norm below this share of the squared norm that it was derived from has lost too many digits.
const DERIVATION: f32 = 0.125;

/// Products of all groups with words: `(words, stride)` from the words' products with the patches, `(words, stride)`.
pub(super) struct GroupSums<'a> {
    /// `(patches, stride)`.
    pub(super) factors: &'a [f32],
    /// Patches that are kept.
    pub(super) kept: &'a [u32],
    /// Number of patches in a row of `table`.
    pub(super) patches: usize,
    /// Products of words with patches; the first patch of the image begins each row.
    pub(super) table: &'a [f32],
    /// Distance between rows of `table`.
    pub(super) table_stride: usize,
    /// Distance between rows of factors and of the result.
    pub(super) stride: usize,
}

impl GroupSums<'_> {
    /// Writes the entries of all `groups` of each of `words` rows.
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

    /// Writes the vectors from `first` on, `V` of them, of each of `words` rows.
    #[inline(always)]
    fn write<S: Simd, const V: usize>(&self, simd: S, first: usize, words: usize, output: &mut [f32]) {
        // As many sums as stay in registers beside the factors.
        let most = match V {
            1 => 8,
            2 if S::REGISTERS < 32 => 6,
            _ if S::REGISTERS < 32 => 3,
            _ => 8,
        };
        let tiles = words.div_ceil(most);
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

/// Squared norms of all groups.
pub(super) struct GroupSquares<'a> {
    /// The image.
    pub(super) image: &'a PreparedImage,
    /// Patches in ascending order.
    pub(super) list: &'a [u32],
    /// Their factors `(patches of the list, stride)`; negative for a patch that is taken away from the reference.
    pub(super) factors: &'a [f32],
    /// Distance between rows of factors.
    pub(super) stride: usize,
    /// What the list is to be added to.
    pub(super) base: Base,
}

/// What a list of patches is added to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing.
    Empty,
    /// The patches that the image alone would keep.
    Reference,
}

impl GroupSquares<'_> {
    /// Writes the vectors from `first` on, `V` of them; bit `i` of the result says that entry `i` of these cannot be
    /// trusted.
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
            if self.base == Base::Reference {
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
        let mut doubtful = 0;
        for vector in 0..V {
            let start = (first + vector) * S::LANES;
            let [square, floor] = match self.base {
                Base::Empty => [total[vector], simd.mul(terms[vector], simd.splat(1.0 / CANCELLATION))],
                Base::Reference => {
                    let reference = simd.load(&self.image.reference_squares[start..]);
                    let sum = simd.add(reference, total[vector]);
                    let floor = simd.load(&self.image.square_floor[start..]);
                    [simd.add(sum, cross[vector]), simd.max(simd.mul(sum, simd.splat(DERIVATION)), floor)]
                }
            };
            let floor = simd.max(floor, simd.splat(f32::MIN_POSITIVE * 1e8));
            doubtful |= u128::from(simd.greater(floor, square)) << (vector * S::LANES);
            simd.store(square, &mut output[start..]);
        }
        doubtful
    }

    #[inline(always)]
    fn factors_at<S: Simd, const V: usize>(&self, simd: S, first: usize, place: usize) -> [S::Vector; V] {
        load(simd, &self.factors[place * self.stride + first * S::LANES..][..V * S::LANES])
    }
}

/// `V` vectors. A loop and not a closure: code in a closure is not sure to be compiled for the caller's instruction set.
#[inline(always)]
pub(super) fn load<S: Simd, const V: usize>(simd: S, from: &[f32]) -> [S::Vector; V] {
    let mut vectors = [simd.splat(0.0); V];
    for (vector, slot) in vectors.iter_mut().enumerate() {
        *slot = simd.load(&from[vector * S::LANES..]);
    }
    vectors
}
