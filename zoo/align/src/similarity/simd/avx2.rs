//! AVX2 and FMA: 8 lanes.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the processor has AVX2, FMA, BMI1 and POPCNT.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
/// The processor must have these features.
#[target_feature(enable = "avx2,fma,bmi1,popcnt")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

// SAFETY of the blocks below: `Avx2` exists only inside `run`, and slices are cut to 8 values first.
impl Simd for Avx2 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const ROWS: usize = 6;
    type Vector = __m256;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        let from = &from[..8];
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, vector: __m256, to: &mut [f32]) {
        let to = &mut to[..8];
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), vector) }
    }
    #[inline(always)]
    fn add(self, left: __m256, right: __m256) -> __m256 {
        unsafe { _mm256_add_ps(left, right) }
    }
    #[inline(always)]
    fn mul(self, left: __m256, right: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(left, right) }
    }
    #[inline(always)]
    fn mul_add(self, left: __m256, right: __m256, addend: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(left, right, addend) }
    }
    #[inline(always)]
    fn max(self, left: __m256, right: __m256) -> __m256 {
        unsafe { _mm256_max_ps(left, right) }
    }
    #[inline(always)]
    fn min(self, left: __m256, right: __m256) -> __m256 {
        unsafe { _mm256_min_ps(left, right) }
    }
    #[inline(always)]
    fn inverse_root(self, vector: __m256) -> __m256 {
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), _mm256_sqrt_ps(vector)) }
    }
    #[inline(always)]
    fn greater(self, left: __m256, right: __m256) -> u32 {
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(left, right)) as u32 }
    }
    #[inline(always)]
    fn select(self, bits: u32, chosen: __m256, other: __m256) -> __m256 {
        unsafe {
            let lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let mask = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), lanes), lanes);
            _mm256_blendv_ps(other, chosen, _mm256_castsi256_ps(mask))
        }
    }
    #[inline(always)]
    fn power_of_two(self, exponent: __m256) -> __m256 {
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    fn prefetch(self, from: &[f32]) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast()) }
    }
}
