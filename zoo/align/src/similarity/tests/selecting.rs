//! The selection and the exponential, on every instruction set.

use super::samples::Random;
use crate::similarity::{
    selection::{Mask, patches, select, select_slowly},
    simd::{Kernel, Level, MOST_LANES, Simd},
};

struct Select<'a> {
    scores: &'a [f32],
    patches: usize,
    kept: usize,
}

impl Kernel for Select<'_> {
    type Output = Mask;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Mask {
        let mut mask = vec![u64::MAX; self.patches.div_ceil(64)];
        select(simd, self.scores, self.patches, self.kept, &mut mask);
        mask
    }
}

fn check(scores: &[f32]) {
    let mut padded = scores.to_vec();
    padded.resize(scores.len().next_multiple_of(MOST_LANES), f32::NEG_INFINITY);
    for level in Level::available() {
        for kept in 1..=scores.len() {
            let found = level.run(Select { scores: &padded, patches: scores.len(), kept });
            assert_eq!(found, select_slowly(scores, kept), "{kept} of {scores:?} with {}", level.name());
        }
    }
}

#[test]
fn the_largest_are_selected_and_of_equals_the_first() {
    let mut random = Random(2);
    for count in [1, 2, 7, 8, 9, 16, 17, 49, 63, 64, 65, 100] {
        check(random.normal(&[count], 0.1).values());
        let coarse: Vec<f32> = random.normal(&[count], 1.0).values().iter().map(|value| value.round()).collect();
        check(&coarse);
        check(&vec![0.25; count]);
        check(&vec![0.0; count]);
    }
    check(&[1.0, f32::from_bits(1.0f32.to_bits() + 1), 1.0, f32::from_bits(1.0f32.to_bits() - 1), 1.0]);
    check(&[0.0, 1e-45, 0.0, -1e-45, 1e-38, 0.0, 2.0, -2.0]);
}

#[test]
fn members_of_a_mask() {
    let mask = [1 << 63 | 1, 0, 0b1010];
    assert_eq!(patches(&mask).collect::<Vec<_>>(), [0, 63, 129, 131]);
}

struct Exponential([f32; MOST_LANES]);

impl Kernel for Exponential {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Vec<f32> {
        let value = simd.exp_negative(simd.load(&self.0));
        simd.store(value, &mut self.0);
        self.0[..S::LANES].to_vec()
    }
}

/// 4e-7 relative: two units in the last place of the polynomial, one more of the reduction.
#[test]
fn exponential() {
    for level in Level::available() {
        for step in 0..20_000 {
            let x = -87.0 * step as f32 / 20_000.0;
            let found = f64::from(level.run(Exponential([x; MOST_LANES]))[0]);
            let expected = f64::from(x).exp();
            assert!((found - expected).abs() <= 4e-7 * expected, "exp({x}) is {expected}, not {found}");
        }
        assert!(level.run(Exponential([f32::NEG_INFINITY; MOST_LANES]))[0] < 2e-38);
    }
}
