//! Plain Rust over arrays of 8 values, which the compiler turns into the vectors of the target.

use super::Simd;

/// Needs no features.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn lanes(function: impl Fn(usize) -> f32) -> [f32; 8] {
    std::array::from_fn(function)
}

impl Simd for Portable {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const ROWS: usize = 4;
    type Vector = [f32; 8];

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> [f32; 8] {
        let from = &from[..8];
        lanes(|i| from[i])
    }
    #[inline(always)]
    fn store(self, vector: [f32; 8], to: &mut [f32]) {
        to[..8].copy_from_slice(&vector);
    }
    #[inline(always)]
    fn add(self, left: [f32; 8], right: [f32; 8]) -> [f32; 8] {
        lanes(|i| left[i] + right[i])
    }
    #[inline(always)]
    fn mul(self, left: [f32; 8], right: [f32; 8]) -> [f32; 8] {
        lanes(|i| left[i] * right[i])
    }
    #[inline(always)]
    fn mul_add(self, left: [f32; 8], right: [f32; 8], addend: [f32; 8]) -> [f32; 8] {
        // Without the instruction, `f32::mul_add` is a slow function call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            lanes(|i| left[i].mul_add(right[i], addend[i]))
        } else {
            lanes(|i| left[i] * right[i] + addend[i])
        }
    }
    #[inline(always)]
    fn max(self, left: [f32; 8], right: [f32; 8]) -> [f32; 8] {
        lanes(|i| if left[i] > right[i] { left[i] } else { right[i] })
    }
    #[inline(always)]
    fn min(self, left: [f32; 8], right: [f32; 8]) -> [f32; 8] {
        lanes(|i| if left[i] < right[i] { left[i] } else { right[i] })
    }
    #[inline(always)]
    fn inverse_root(self, vector: [f32; 8]) -> [f32; 8] {
        lanes(|i| 1.0 / vector[i].sqrt())
    }
    #[inline(always)]
    fn greater(self, left: [f32; 8], right: [f32; 8]) -> u32 {
        (0..8).fold(0, |bits, i| bits | u32::from(left[i] > right[i]) << i)
    }
    #[inline(always)]
    fn select(self, bits: u32, chosen: [f32; 8], other: [f32; 8]) -> [f32; 8] {
        lanes(|i| if bits >> i & 1 == 1 { chosen[i] } else { other[i] })
    }
    #[inline(always)]
    fn power_of_two(self, exponent: [f32; 8]) -> [f32; 8] {
        lanes(|i| f32::from_bits(((exponent[i] as i32 + 127) as u32) << 23))
    }
}
