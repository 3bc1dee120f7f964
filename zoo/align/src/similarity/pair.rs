//! Similarities of one image and the captions of a block, computed from the products of words and tokens.

use std::ops::Range;

use super::{
    captions::CaptionMatrix,
    config::{AlignmentConfig, LEAKY_SLOPE},
    groups::{GroupSquares, GroupSums, SquareBase, load},
    images::{PreparedImage, stride},
    product::Panels,
    scratch::PairScratch,
    selection::{patches, select},
    simd::{Kernel, Simd},
    stages::{Clock, PairStage},
};

/// Computes the similarities of one image and the captions of a block.
pub(super) struct PairKernel<'a, C> {
    pub(super) config: &'a AlignmentConfig,
    pub(super) image: &'a PreparedImage,
    /// Normalised tokens of all prepared images; those of the image start at `first_token`.
    pub(super) tokens: &'a Panels,
    pub(super) first_token: usize,
    /// Products of the block's words with tokens. Each row starts with the first patch of the image and can be read up to a
    /// whole vector after its last.
    pub(super) table: &'a [f32],
    pub(super) table_stride: usize,
    pub(super) captions: &'a CaptionMatrix,
    pub(super) block: Range<usize>,
    pub(super) scratch: &'a mut PairScratch,
    /// Similarity of each caption of the block.
    pub(super) output: &'a mut [f32],
    /// Is notified after each stage.
    pub(super) clock: &'a mut C,
}

impl<C: Clock> Kernel for PairKernel<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let block = self.block.clone();
        let first_word = self.captions.span(block.clone()).start;
        for (place, caption) in block.enumerate() {
            let words = self.captions.span(caption..caption + 1);
            let table = &self.table[(words.start - first_word) * self.table_stride..];
            self.output[place] = self.pair(simd, table, words);
        }
        self.scratch.counts.pairs += self.output.len() as u64;
    }
}

impl<C: Clock> PairKernel<'_, C> {
    #[inline(always)]
    fn pair<S: Simd>(&mut self, simd: S, table: &[f32], words: Range<usize>) -> f32 {
        let count = words.len();
        self.score(simd, table, self.captions.mean_weights(words.clone()));
        self.clock.lap(PairStage::Scores);
        let scratch = &mut *self.scratch;
        select(simd, &scratch.scores, self.config.patches, self.config.kept, &mut scratch.mask);
        self.clock.lap(PairStage::Selection);
        self.sum_groups(simd, table, count);
        self.clock.lap(PairStage::Groups);
        self.norm_groups(simd, &words);
        self.clock.lap(PairStage::Norms);
        self.fuse_dropped(simd, table, &words);
        self.clock.lap(PairStage::Fused);
        let [of_words, of_tokens] = self.mean_maxima(simd, self.config.aligned_tokens(), count);
        self.clock.lap(PairStage::Maxima);
        (of_words + of_tokens) as f32
    }

    /// Scores of the patches: the cosine with the mean patch plus the cosine with the mean word.
    #[inline(always)]
    pub(super) fn score<S: Simd>(&mut self, simd: S, table: &[f32], weights: &[f32]) {
        let used = self.config.patches.next_multiple_of(S::LANES);
        let mut first = 0;
        while first < used {
            if first + 4 * S::LANES <= used {
                self.score_part::<S, 4>(simd, table, weights, first);
                first += 4 * S::LANES;
            } else {
                self.score_part::<S, 1>(simd, table, weights, first);
                first += S::LANES;
            }
        }
    }

    #[inline(always)]
    fn score_part<S: Simd, const V: usize>(&mut self, simd: S, table: &[f32], weights: &[f32], first: usize) {
        let image = &self.image.scores[first..][..V * S::LANES];
        let mut sums = load::<S, V>(simd, image);
        for (word, &weight) in weights.iter().enumerate() {
            let row = &table[word * self.table_stride + first..][..V * S::LANES];
            let weight = simd.splat(weight);
            for (vector, sum) in sums.iter_mut().enumerate() {
                *sum = simd.mul_add(weight, simd.load(&row[vector * S::LANES..]), *sum);
            }
        }
        let to = &mut self.scratch.scores[first..][..V * S::LANES];
        for (vector, &sum) in sums.iter().enumerate() {
            simd.store(sum, &mut to[vector * S::LANES..]);
        }
    }

    /// Products of the groups and the class token with the words.
    #[inline(always)]
    pub(super) fn sum_groups<S: Simd>(&mut self, simd: S, table: &[f32], words: usize) {
        let PairScratch { mask, kept, similarities, .. } = &mut *self.scratch;
        let mut count = 0;
        for patch in patches(mask) {
            kept[count] = patch as u32;
            count += 1;
        }
        let stride = stride(self.config);
        let sums = GroupSums {
            factors: &self.image.factors,
            kept: &kept[..count],
            patches: self.config.patches,
            table,
            table_stride: self.table_stride,
            stride,
        };
        sums.write_all(simd, self.config.groups, words, similarities);
        if self.config.has_class_token {
            let rows = similarities.chunks_exact_mut(stride).zip(table.chunks(self.table_stride));
            rows.take(words).for_each(|(to, row)| to[self.config.groups] = row[self.config.patches]);
        }
    }

    /// Squared norms of the groups.
    #[inline(always)]
    pub(super) fn norm_groups<S: Simd>(&mut self, simd: S, words: &Range<usize>) {
        let PairScratch { mask, list, .. } = &mut *self.scratch;
        let mut count = 0;
        for (index, (&bits, &reference)) in mask.iter().zip(&self.image.reference).enumerate() {
            let mut bits = bits ^ reference;
            while bits != 0 {
                list[count] = (index * 64) as u32 + bits.trailing_zeros();
                count += 1;
                bits &= bits - 1;
            }
        }
        // Norms from the difference to the reference selection, unless that is more work or loses too many digits.
        if count <= self.config.kept && !self.group_squares(simd, SquareBase::Reference, count, words) {
            return;
        }
        let PairScratch { kept, list, counts, .. } = &mut *self.scratch;
        list[..self.config.kept].copy_from_slice(&kept[..self.config.kept]);
        counts.from_all_kept += 1;
        self.group_squares(simd, SquareBase::Empty, self.config.kept, words);
    }

    /// Whether norms derived from the reference selection have lost too many digits. Groups whose norms from all kept patches
    /// have lost too many are computed as vectors.
    #[inline(always)]
    fn group_squares<S: Simd>(&mut self, simd: S, base: SquareBase, count: usize, words: &Range<usize>) -> bool {
        let stride = stride(self.config);
        let vectors = self.config.groups.div_ceil(S::LANES);
        let PairScratch { mask, list, factors, .. } = &mut *self.scratch;
        for (&patch, to) in list[..count].iter().zip(factors.chunks_exact_mut(stride)) {
            let added = mask[patch as usize / 64] >> (patch % 64) & 1 == 1;
            let sign = simd.splat(if added { 1.0 } else { -1.0 });
            let from = &self.image.factors[patch as usize * stride..][..stride];
            for first in (0..vectors * S::LANES).step_by(S::LANES) {
                simd.store(simd.mul(sign, simd.load(&from[first..])), &mut to[first..]);
            }
        }
        for first in (0..vectors).step_by(5) {
            let PairScratch { list, factors, squares, .. } = &mut *self.scratch;
            let work = GroupSquares { image: self.image, list: &list[..count], factors, stride, base };
            let mut inexact = match vectors - first {
                1 => work.write::<S, 1>(simd, first, squares),
                2 => work.write::<S, 2>(simd, first, squares),
                3 => work.write::<S, 3>(simd, first, squares),
                4 => work.write::<S, 4>(simd, first, squares),
                _ => work.write::<S, 5>(simd, first, squares),
            };
            let groups = self.config.groups - first * S::LANES;
            if groups < 128 {
                inexact &= (1 << groups) - 1;
            }
            if base == SquareBase::Reference && inexact != 0 {
                return true;
            }
            while inexact != 0 {
                self.group_as_vector(first * S::LANES + inexact.trailing_zeros() as usize, words);
                inexact &= inexact - 1;
            }
        }
        false
    }

    /// Mean over words of the maximum over the first `tokens` tokens, and mean over these tokens of the maximum over words.
    /// The leaky ReLU is monotonic, so it is applied to the maxima only.
    #[inline(always)]
    pub(super) fn mean_maxima<S: Simd>(&mut self, simd: S, tokens: usize, words: usize) -> [f64; 2] {
        let stride = stride(self.config);
        let vectors = tokens.div_ceil(S::LANES);
        let PairScratch { squares, similarities, inverse_norms, best, .. } = &mut *self.scratch;
        if self.config.has_class_token {
            squares[self.config.groups] = 1.0;
        }
        for first in (0..vectors * S::LANES).step_by(S::LANES) {
            let squares = simd.max(simd.load(&squares[first..]), simd.splat(f32::MIN_POSITIVE));
            simd.store(simd.inverse_root(squares), &mut inverse_norms[first..]);
            simd.store(simd.splat(f32::NEG_INFINITY), &mut best[first..]);
        }
        let valid = u32::MAX >> (32 - (tokens - (vectors - 1) * S::LANES));
        let mut over_words = 0.0;
        for row in similarities.chunks_exact(stride).take(words) {
            let mut largest = simd.splat(f32::NEG_INFINITY);
            for vector in 0..vectors {
                let first = vector * S::LANES;
                let mut values = simd.mul(simd.load(&row[first..]), simd.load(&inverse_norms[first..]));
                if vector + 1 == vectors {
                    values = simd.select(valid, values, simd.splat(f32::NEG_INFINITY));
                }
                largest = simd.max(values, largest);
                simd.store(simd.max(values, simd.load(&best[first..])), &mut best[first..]);
            }
            over_words += f64::from(leaky_relu(simd.largest(largest)));
        }
        let over_tokens: f64 = best[..tokens].iter().map(|&value| f64::from(leaky_relu(value))).sum();
        [over_words / words as f64, over_tokens / tokens as f64]
    }
}

pub(super) fn leaky_relu(value: f32) -> f32 {
    if value < 0.0 { LEAKY_SLOPE * value } else { value }
}
