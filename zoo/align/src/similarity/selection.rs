//! Which patches a caption keeps.

use super::simd::Simd;

/// A set of patches: bit `i % 64` of word `i / 64`.
pub(super) type Mask = Vec<u64>;

/// Sets the bits of the `kept` largest of `scores`; of equal ones the first. `scores` are padded to whole vectors with
/// minus infinity, `patches` of them are real.
///
/// Looks for a threshold that exactly `kept` scores are above; scores on both sides of it need no order. Where equal
/// scores leave none, the search ends at neighbouring floats.
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
    // Above `high` there are fewer than `kept`; at `low` and above, more.
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

/// All above `high`, then those at `high`, then those at `low`, the first of equals first.
#[cold]
fn write_with_ties(scores: &[f32], patches: usize, kept: usize, [low, high]: [f32; 2], mask: &mut [u64]) {
    mask.fill(0);
    let mut left = kept;
    let passes: [&dyn Fn(f32) -> bool; 3] = [&|score| score > high, &|score| score == high, &|score| score == low];
    for takes in passes {
        for (patch, &score) in scores[..patches].iter().enumerate() {
            if left > 0 && takes(score) {
                mask[patch / 64] |= 1 << (patch % 64);
                left -= 1;
            }
        }
    }
}

/// The same by sorting, for what is done once an image.
pub(super) fn select_slowly(scores: &[f32], kept: usize) -> Mask {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Adding zero makes both zeros equal, as they are to `select`.
    order.sort_by(|&left, &right| (scores[right] + 0.0).total_cmp(&(scores[left] + 0.0)).then(left.cmp(&right)));
    let mut mask = vec![0; scores.len().div_ceil(64)];
    order.iter().take(kept).for_each(|patch| mask[patch / 64] |= 1 << (patch % 64));
    mask
}

/// The patches of a mask in ascending order.
pub(super) fn patches(mask: &[u64]) -> impl Iterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(index, &bits)| {
        std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)))
            .take_while(|&bits| bits != 0)
            .map(move |bits| index * 64 + bits.trailing_zeros() as usize)
    })
}
