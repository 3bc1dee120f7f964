//! The selection of patches and the exponential function, on every instruction set.

use super::samples::SampleGenerator;
use crate::similarity::{
    selection::{Mask, patches, select_patches},
    simd::{Kernel, MAX_LANES, Simd, SimdLevel},
};

/// The selection by sorting.
fn select_by_sorting(scores: &[f32], kept: usize) -> Mask {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Adding zero makes -0.0 equal to 0.0.
    order.sort_by(|&left, &right| (scores[right] + 0.0).total_cmp(&(scores[left] + 0.0)).then(left.cmp(&right)));
    let mut mask = vec![0; scores.len().div_ceil(64)];
    order.iter().take(kept).for_each(|patch| mask[patch / 64] |= 1 << (patch % 64));
    mask
}

fn assert_selects_like_sorting(scores: &[f32]) {
    let mut padded = scores.to_vec();
    padded.resize(scores.len().next_multiple_of(MAX_LANES), f32::NEG_INFINITY);
    for level in SimdLevel::available() {
        for kept in 1..=scores.len() {
            let mut mask = vec![u64::MAX; scores.len().div_ceil(64)];
            select_patches(level, &padded, scores.len(), kept, &mut mask);
            assert_eq!(mask, select_by_sorting(scores, kept), "{kept} of {scores:?} with {}", level.name());
        }
    }
}
#[test]
fn largest_scores_are_selected_and_the_first_of_equal_ones() {
    let mut random = SampleGenerator(2);
    for count in [1, 2, 7, 8, 9, 16, 17, 49, 63, 64, 65, 100] {
        assert_selects_like_sorting(random.normal(&[count], 0.1).values());
        let coarse: Vec<f32> = random.normal(&[count], 1.0).values().iter().map(|value| value.round()).collect();
        assert_selects_like_sorting(&coarse);
        assert_selects_like_sorting(&vec![0.25; count]);
        assert_selects_like_sorting(&vec![0.0; count]);
    }
    assert_selects_like_sorting(&[
        1.0,
        f32::from_bits(1.0f32.to_bits() + 1),
        1.0,
        f32::from_bits(1.0f32.to_bits() - 1),
        1.0,
    ]);
    assert_selects_like_sorting(&[0.0, 1e-45, 0.0, -1e-45, 1e-38, 0.0, 2.0, -2.0]);
}

#[test]
fn patches_of_a_mask_are_listed() {
    let mask = [1 << 63 | 1, 0, 0b1010];
    assert_eq!(patches(&mask).collect::<Vec<_>>(), [0, 63, 129, 131]);
}

struct Exponential([f32; MAX_LANES]);

impl Kernel for Exponential {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Vec<f32> {
        let value = simd.exp_negative(simd.load(&self.0));
        simd.store(value, &mut self.0);
        self.0[..S::LANES].to_vec()
    }
}

/// Relative error of 4e-7: two units in the last place from the polynomial, and one from the reduction.
#[test]
fn exponential_is_accurate() {
    for level in SimdLevel::available() {
        for step in 0..20_000 {
            let x = -87.0 * step as f32 / 20_000.0;
            let found = f64::from(level.run(Exponential([x; MAX_LANES]))[0]);
            let expected = f64::from(x).exp();
            assert!((found - expected).abs() <= 4e-7 * expected, "exp({x}) is {expected}, not {found}");
        }
        assert!(level.run(Exponential([f32::NEG_INFINITY; MAX_LANES]))[0] < 2e-38);
    }
}
