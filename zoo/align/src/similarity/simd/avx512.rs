//! AVX-512F: 16 lanes.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the processor has AVX-512F, AVX2, FMA, BMI1 and POPCNT.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// # Safety
/// The processor must have these features.
#[target_feature(enable = "avx512f,avx2,fma,bmi1,popcnt")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

// SAFETY of the blocks below: `Avx512` exists only inside `run`, and slices are cut to 16 values first.
impl Simd for Avx512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const ROWS: usize = 12;
    type Vector = __m512;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        let from = &from[..16];
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, vector: __m512, to: &mut [f32]) {
        let to = &mut to[..16];
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
    }
    #[inline(always)]
    fn add(self, left: __m512, right: __m512) -> __m512 {
        unsafe { _mm512_add_ps(left, right) }
    }
    #[inline(always)]
    fn mul(self, left: __m512, right: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(left, right) }
    }
    #[inline(always)]
    fn mul_add(self, left: __m512, right: __m512, addend: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(left, right, addend) }
    }
    #[inline(always)]
    fn max(self, left: __m512, right: __m512) -> __m512 {
        unsafe { _mm512_max_ps(left, right) }
    }
    #[inline(always)]
    fn min(self, left: __m512, right: __m512) -> __m512 {
        unsafe { _mm512_min_ps(left, right) }
    }
    #[inline(always)]
    fn inverse_root(self, vector: __m512) -> __m512 {
        unsafe { _mm512_div_ps(_mm512_set1_ps(1.0), _mm512_sqrt_ps(vector)) }
    }
    #[inline(always)]
    fn greater(self, left: __m512, right: __m512) -> u32 {
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(left, right)) }
    }
    #[inline(always)]
    fn select(self, bits: u32, chosen: __m512, other: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(bits as u16, other, chosen) }
    }
    #[inline(always)]
    fn power_of_two(self, exponent: __m512) -> __m512 {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(exponent), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    fn prefetch(self, from: &[f32]) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast()) }
    }
}
