//! The patches that a caption does not keep, merged into one.

use std::ops::Range;

use super::{groups::CANCELLATION, images::stride, pair::Pairs, scratch::Scratch, simd::Simd};

impl Pairs<'_> {
    /// The fused patch: its products with the words, and its squared norm. Where every patch is kept it is the zero
    /// vector, as a sum over no patches is, and its products are zero.
    #[inline(always)]
    pub(super) fn fuse<S: Simd>(&mut self, simd: S, table: &[f32], words: &Range<usize>) {
        let column = self.config.aligned_tokens() - 1;
        let stride = stride(self.config);
        let used = self.config.patches.next_multiple_of(S::LANES);
        let count = self.weigh(simd, used);
        let Scratch { fused, list, similarities, .. } = &mut *self.scratch;
        for (word, to) in similarities.chunks_exact_mut(stride).take(words.len()).enumerate() {
            let row = &table[word * self.table_stride..][..used];
            let mut sums = [simd.splat(0.0); 2];
            for (vector, first) in (0..used).step_by(S::LANES).enumerate() {
                sums[vector % 2] = simd.mul_add(simd.load(&fused[first..]), simd.load(&row[first..]), sums[vector % 2]);
            }
            to[column] = simd.sum(simd.add(sums[0], sums[1]));
        }
        let mut total = simd.splat(0.0);
        let mut terms = 0.0;
        for &patch in &list[..count] {
            let patch = patch as usize;
            let row = self.image.gram.row(patch);
            let mut sum = simd.splat(0.0);
            for first in (0..=patch).step_by(S::LANES) {
                sum = simd.mul_add(simd.load(&row[first..]), simd.load(&fused[first..]), sum);
            }
            total = simd.mul_add(simd.splat(fused[patch]), sum, total);
            terms += fused[patch] * fused[patch];
        }
        let square = simd.sum(total);
        self.scratch.squares[column] = square;
        if square * CANCELLATION < terms {
            self.fused_as_vector(count, words);
        }
    }

    /// Lists the dropped patches and sets the weight of each: `exp(score - largest of them)` times its norm.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, used: usize) -> usize {
        let Scratch { scores, fused, mask, list, .. } = &mut *self.scratch;
        let mask: &[u64] = mask;
        let patches = self.config.patches;
        let dropped = |first: usize| {
            let real = u64::MAX >> (64 - (patches - first).min(S::LANES));
            (!mask[first / 64] >> (first % 64) & real) as u32
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
