//! Peak floating-point rate of the CPU: fused multiply-adds on registers only.
//!
//! It is an upper bound for matrix products, measured with the instruction set of the engine, on as many threads, at
//! the clock rate that the CPU then sustains. It is meaningful only in an optimised build.

#![allow(unsafe_code, reason = "CPU intrinsics, called only after run-time detection")]

use std::{hint::black_box, thread, time::Instant};

/// Independent dependency chains: more than latency times throughput of known CPUs, and few enough for 16 registers.
const CHAINS: usize = 12;

/// Multiply-adds per chain and measurement: a few hundredths of a second.
const ROUNDS: usize = 1 << 23;

/// Number of measurements; the maximum counts, because other processes may use the CPU.
const MEASUREMENTS: usize = 5;

const FACTOR: f32 = 0.999;
const ADDEND: f32 = 0.001;

/// 10^9 floating-point operations per second of `threads` threads together; a multiply-add counts as two.
pub fn peak_gflops(threads: usize) -> f64 {
    let threads = threads.max(1);
    let measure = |_| {
        let began = Instant::now();
        let lanes = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(multiply_adds)).collect();
            let own = multiply_adds();
            others.into_iter().filter_map(|other| other.join().ok()).sum::<usize>() + own
        });
        (2 * lanes * CHAINS * ROUNDS) as f64 / began.elapsed().as_secs_f64() / 1e9
    };
    (0..MEASUREMENTS).map(measure).fold(0.0, f64::max)
}

/// Runs the chains; returns the number of lanes of a vector.
fn multiply_adds() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU supports AVX-512F, as detected above.
            black_box(unsafe { x86::avx512() });
            return 16;
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the CPU supports AVX2 and FMA, as detected above.
            black_box(unsafe { x86::avx2() });
            return 8;
        }
    }
    black_box(portable());
    4
}

fn portable() -> [[f32; 4]; CHAINS] {
    let mut sums = [[1.0f32; 4]; CHAINS];
    let [factor, addend] = black_box([FACTOR, ADDEND]);
    for _ in 0..ROUNDS {
        for value in sums.iter_mut().flatten() {
            *value =
                if cfg!(target_arch = "aarch64") { value.mul_add(factor, addend) } else { *value * factor + addend };
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::{ADDEND, CHAINS, FACTOR, ROUNDS};

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512() -> [__m512; CHAINS] {
        let [factor, addend] = black_box([FACTOR, ADDEND]).map(|value| _mm512_set1_ps(value));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, addend);
            }
        }
        sums
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2() -> [__m256; CHAINS] {
        let [factor, addend] = black_box([FACTOR, ADDEND]).map(|value| _mm256_set1_ps(value));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, addend);
            }
        }
        sums
    }
}
