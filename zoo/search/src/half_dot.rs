//! Dot products of half-precision vectors with a query, without decoding them to memory. They have the bits of [`dot`] of
//! the decoded vectors.
//!
//! `unsafe` is sound here: the features of the vector function are detected before it is called, and each of its loads is
//! inside of an array reference of that size.

#![allow(unsafe_code, reason = "CPU intrinsics, called only after run-time detection")]

/// Writes the dot products of the rows of `bytes`, little-endian fp16 of the length of `query`, with `query`. Returns whether
/// the CPU has the instructions; without them nothing is written.
pub(super) fn dots(bytes: &[u8], query: &[f32], products: &mut [f32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: the CPU has the features.
        unsafe { vector::dots(bytes, query, products) };
        return true;
    }
    _ = (bytes, query, products);
    false
}

#[cfg(target_arch = "x86_64")]
mod vector {
    use std::arch::x86_64::{
        __m256, _mm_loadu_si128, _mm256_add_ps, _mm256_cvtph_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_setzero_ps,
        _mm256_storeu_ps,
    };

    use half::f16;

    use crate::searcher::LANES;

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn dots(bytes: &[u8], query: &[f32], products: &mut [f32]) {
        let (steps, rest) = query.as_chunks::<LANES>();
        for (product, row) in products.iter_mut().zip(bytes.chunks_exact(2 * query.len())) {
            let (row_steps, row_rest) = row.as_chunks::<{ 2 * LANES }>();
            let mut sums = [_mm256_setzero_ps(); LANES / 8];
            for (bytes, query) in row_steps.iter().zip(steps) {
                let (bytes, query) = (bytes.as_chunks::<16>().0, query.as_chunks::<8>().0);
                for (sum, (bytes, query)) in sums.iter_mut().zip(bytes.iter().zip(query)) {
                    *sum = _mm256_add_ps(*sum, _mm256_mul_ps(halves(bytes), floats(query)));
                }
            }
            let mut lanes = [0.0; LANES];
            for (lanes, sum) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                // SAFETY: the array has eight values.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
            }
            let rest = row_rest.as_chunks::<2>().0.iter().zip(rest);
            let rest = rest.map(|(&word, query)| f16::from_le_bytes(word).to_f32() * query);
            *product = lanes.iter().sum::<f32>() + rest.sum::<f32>();
        }
    }

    #[target_feature(enable = "avx2,f16c")]
    fn halves(bytes: &[u8; 16]) -> __m256 {
        // SAFETY: the array has 16 bytes, which need no alignment. x86-64 is little-endian.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx2,f16c")]
    fn floats(values: &[f32; 8]) -> __m256 {
        // SAFETY: the array has eight values, which need no alignment.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use laps_model::random::SplitMix64;

    use super::dots;
    use crate::{IndexPrecision, searcher::dot};

    #[test]
    fn vector_instructions_give_the_same_bits() {
        let mut random = SplitMix64::new(8);
        let mut value = || (random.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        for width in [1, 7, 8, 31, 32, 33, 64, 100, 512] {
            let query: Vec<f32> = (0..width).map(|_| value()).collect();
            let bytes: Vec<u8> = (0..5 * width).flat_map(|_| f16::from_f32(value()).to_le_bytes()).collect();
            let mut found = [f32::NAN; 5];
            if !dots(&bytes, &query, &mut found) {
                println!("skipped: this CPU does not convert fp16");
                return;
            }
            let mut values = vec![0.0; 5 * width];
            IndexPrecision::Half.decode(&bytes, &mut values);
            let expected: Vec<u32> = values.chunks_exact(width).map(|row| dot(row, &query).to_bits()).collect();
            assert_eq!(found.map(f32::to_bits), expected[..], "{width}");
        }
    }
}
