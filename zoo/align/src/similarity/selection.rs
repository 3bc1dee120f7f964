//! Selection of the patches that a caption keeps.

use super::simd::{Kernel, Simd, SimdLevel};

/// A set of patches: bit `i % 64` of word `i / 64`.
pub(super) type Mask = Vec<u64>;

/// Sets the bits of the `kept` largest of `scores`; of equal scores, the first. `scores` are padded with minus infinity to
/// whole vectors; `patches` of them are valid.
///
/// It searches for a threshold below which exactly the other scores lie, so the scores need not be sorted. If equal scores
/// leave no such threshold, the search ends at neighbouring floats.
#[inline(always)]
pub(super) fn select<S: Simd>(simd: S, scores: &[f32], patches: usize, kept: usize, mask: &mut [u64]) {
    let vectors = patches.div_ceil(S::LANES);
    let scores = &scores[..vectors * S::LANES];
    if kept >= patches {
        write(simd, scores, f32::NEG_INFINITY, mask);
        return;
    }
    let [mut smallest, mut largest] = [simd.splat(scores[0]); 2];
    for vector in scores[..patches / S::LANES * S::LANES].chunks_exact(S::LANES) {
        let vector = simd.load(vector);
        smallest = simd.min(smallest, vector);
        largest = simd.max(largest, vector);
    }
    let negated = simd.mul(smallest, simd.splat(-1.0));
    let [mut low, mut high] = [-simd.largest(negated), simd.largest(largest)];
    for &score in &scores[patches / S::LANES * S::LANES..patches] {
        low = low.min(score);
        high = high.max(score);
    }
    let mut above_low = patches;
    let mut above_high = 0;
    let mut halve = false;
    // Invariant: fewer than `kept` scores are above `high`, and more than `kept` are above or equal to `low`.
    loop {
        let share = if halve { 0.5 } else { (above_low - kept) as f32 / (above_low - above_high) as f32 };
        halve = !halve;
        let middle = low + (high - low) * share;
        let middle = if middle > low && middle < high { middle } else { low + (high - low) * 0.5 };
        if !(middle > low && middle < high) {
            break;
        }
        let above = count_above(simd, scores, middle);
        if above == kept {
            write(simd, scores, middle, mask);
            return;
        }
        if above > kept {
            (low, above_low) = (middle, above);
        } else {
            (high, above_high) = (middle, above);
        }
    }
    write_with_ties(scores, patches, kept, [low, high], mask);
}

#[inline(always)]
fn count_above<S: Simd>(simd: S, scores: &[f32], threshold: f32) -> usize {
    let threshold = simd.splat(threshold);
    scores.chunks_exact(S::LANES).map(|vector| simd.greater(simd.load(vector), threshold).count_ones() as usize).sum()
}

#[inline(always)]
fn write<S: Simd>(simd: S, scores: &[f32], threshold: f32, mask: &mut [u64]) {
    mask.fill(0);
    let threshold = simd.splat(threshold);
    for (index, vector) in scores.chunks_exact(S::LANES).enumerate() {
        let bits = u64::from(simd.greater(simd.load(vector), threshold));
        mask[index * S::LANES / 64] |= bits << (index * S::LANES % 64);
    }
}

/// Sets the bits of all scores above `high`, then of those equal to `high`, then of those equal to `low`, in ascending order.
#[cold]
fn write_with_ties(scores: &[f32], patches: usize, kept: usize, [low, high]: [f32; 2], mask: &mut [u64]) {
    mask.fill(0);
    let mut remaining = kept;
    let passes: [&dyn Fn(f32) -> bool; 3] = [&|score| score > high, &|score| score == high, &|score| score == low];
    for is_selected in passes {
        for (patch, &score) in scores[..patches].iter().enumerate() {
            if remaining > 0 && is_selected(score) {
                mask[patch / 64] |= 1 << (patch % 64);
                remaining -= 1;
            }
        }
    }
}

/// [`select`] for callers outside of kernels. `scores` are padded with minus infinity to a multiple of
/// [`MAX_LANES`](super::simd::MAX_LANES).
pub(crate) fn select_patches(level: SimdLevel, scores: &[f32], patches: usize, kept: usize, mask: &mut [u64]) {
    level.run(SelectPatches { scores, patches, kept, mask });
}

struct SelectPatches<'a> {
    scores: &'a [f32],
    patches: usize,
    kept: usize,
    mask: &'a mut [u64],
}

impl Kernel for SelectPatches<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        select(simd, self.scores, self.patches, self.kept, self.mask);
    }
}

/// The patches of a mask in ascending order.
pub(crate) fn patches(mask: &[u64]) -> impl Iterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(index, &bits)| {
        std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)))
            .take_while(|&bits| bits != 0)
            .map(move |bits| index * 64 + bits.trailing_zeros() as usize)
    })
}
