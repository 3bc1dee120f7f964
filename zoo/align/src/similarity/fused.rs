//! The fused patch: the weighted sum of the patches that a caption drops.

use std::ops::Range;

use super::{
    config::CANCELLATION,
    images::stride,
    pair::PairKernel,
    scratch::PairScratch,
    simd::{MAX_LANES, Simd},
    stages::Clock,
};

impl<C: Clock> PairKernel<'_, C> {
    /// Computes the products of the fused patch with the words, and its squared norm. If no patch is dropped, the fused patch
    /// is the zero vector.
    #[inline(always)]
    pub(super) fn fuse_dropped<S: Simd>(&mut self, simd: S, table: &[f32], words: &Range<usize>) {
        let column = self.config.aligned_tokens() - 1;
        let stride = stride(self.config);
        let used = self.config.patches.next_multiple_of(S::LANES);
        let count = self.weigh_dropped(simd, used);
        let PairScratch { fused, list, similarities, .. } = &mut *self.scratch;
        for (word, to) in similarities.chunks_exact_mut(stride).take(words.len()).enumerate() {
            let row = table[word * self.table_stride..][..used].chunks_exact(S::LANES);
            let mut sum = simd.splat(0.0);
            for (row, weights) in row.zip(fused.chunks_exact(S::LANES)) {
                sum = simd.mul_add(simd.load(weights), simd.load(row), sum);
            }
            to[column] = simd.sum(sum);
        }
        let mut total = simd.splat(0.0);
        let mut terms = 0.0;
        for pair in list[..count].chunks(2) {
            let [first, second] = [pair[0] as usize, pair[pair.len() - 1] as usize];
            let weights = [fused[first], if pair.len() == 2 { fused[second] } else { 0.0 }];
            let sums = row_products(simd, [self.image.gram.row(first), self.image.gram.row(second)], fused);
            total = simd.mul_add(simd.splat(weights[0]), sums[0], total);
            total = simd.mul_add(simd.splat(weights[1]), sums[1], total);
            terms += weights[0] * weights[0] + weights[1] * weights[1];
        }
        let square = simd.sum(total);
        self.scratch.squares[column] = square;
        if square * CANCELLATION < terms {
            self.fused_as_vector(count, words);
        }
    }

    /// Lists the dropped patches and computes their weights: `exp(score - largest score)` times the norm.
    #[inline(always)]
    fn weigh_dropped<S: Simd>(&mut self, simd: S, used: usize) -> usize {
        let PairScratch { scores, fused, mask, list, .. } = &mut *self.scratch;
        let mask: &[u64] = mask;
        let patches = self.config.patches;
        let dropped = |first: usize| {
            let valid = u64::MAX >> (64 - (patches - first).min(S::LANES));
            (!mask[first / 64] >> (first % 64) & valid) as u32
        };
        let lowest = simd.splat(f32::NEG_INFINITY);
        let mut peak = lowest;
        for first in (0..used).step_by(S::LANES) {
            peak = simd.max(simd.select(dropped(first), simd.load(&scores[first..]), lowest), peak);
        }
        let peak = simd.splat(-simd.largest(peak));
        let mut count = 0;
        for first in (0..used).step_by(S::LANES) {
            let mut bits = dropped(first);
            let weights = simd.exp_negative(simd.add(simd.load(&scores[first..]), peak));
            let weights = simd.mul(weights, simd.load(&self.image.norms[first..]));
            simd.store(simd.select(bits, weights, simd.splat(0.0)), &mut fused[first..]);
            while bits != 0 {
                list[count] = first as u32 + bits.trailing_zeros();
                count += 1;
                bits &= bits - 1;
            }
        }
        count
    }
}

/// Lane sums of the products of two rows of the triangle with weights. `one` must be the shorter row.
#[inline(always)]
fn row_products<S: Simd>(simd: S, [one, other]: [&[f32]; 2], weights: &[f32]) -> [S::Vector; 2] {
    let zero = simd.splat(0.0);
    let mut sums = [[zero; 2]; 2];
    let parts = one.chunks_exact(MAX_LANES).zip(other.chunks_exact(MAX_LANES));
    for ((one, other), weights) in parts.zip(weights.chunks_exact(MAX_LANES)) {
        for (vector, first) in (0..MAX_LANES / S::LANES).map(|vector| (vector, vector * S::LANES)) {
            let weights = simd.load(&weights[first..]);
            sums[0][vector] = simd.mul_add(simd.load(&one[first..]), weights, sums[0][vector]);
            sums[1][vector] = simd.mul_add(simd.load(&other[first..]), weights, sums[1][vector]);
        }
    }
    let rest = other[one.len()..].chunks_exact(MAX_LANES);
    for (other, weights) in rest.zip(weights[one.len()..].chunks_exact(MAX_LANES)) {
        for (vector, first) in (0..MAX_LANES / S::LANES).map(|vector| (vector, vector * S::LANES)) {
            sums[1][vector] = simd.mul_add(simd.load(&other[first..]), simd.load(&weights[first..]), sums[1][vector]);
        }
    }
    [simd.add(sums[0][0], sums[0][1]), simd.add(sums[1][0], sums[1][1])]
}
