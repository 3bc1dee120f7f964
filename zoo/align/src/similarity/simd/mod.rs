//! The vector operations of the kernels, with one implementation per instruction set.
//!
//! Everything outside this folder is safe code: loads and stores take slices, and a vector type is only available through
//! [`SimdLevel`], which detects the features of the processor.

#![allow(unsafe_code, reason = "processor intrinsics, called only behind run-time detection")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Vectors of `LANES` f32 values.
pub(super) trait Simd: Copy {
    /// Number of values of a vector, at most [`MAX_LANES`].
    const LANES: usize;
    /// Number of vector registers.
    const REGISTERS: usize;
    /// Number of rows of the largest register tile of a matrix product. The tile is two vectors wide.
    const ROWS: usize;
    /// A vector.
    type Vector: Copy;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::Vector;
    /// Loads the first values of `from`.
    fn load(self, from: &[f32]) -> Self::Vector;
    /// Stores to the first values of `to`.
    fn store(self, vector: Self::Vector, to: &mut [f32]);
    /// Sum.
    fn add(self, left: Self::Vector, right: Self::Vector) -> Self::Vector;
    /// Product.
    fn mul(self, left: Self::Vector, right: Self::Vector) -> Self::Vector;
    /// `left * right + addend`, rounded once if the processor has the instruction.
    fn mul_add(self, left: Self::Vector, right: Self::Vector, addend: Self::Vector) -> Self::Vector;
    /// Maximum; `right` if one of them is NaN.
    fn max(self, left: Self::Vector, right: Self::Vector) -> Self::Vector;
    /// Minimum; `right` if one of them is NaN.
    fn min(self, left: Self::Vector, right: Self::Vector) -> Self::Vector;
    /// Inverse square root.
    fn inverse_root(self, vector: Self::Vector) -> Self::Vector;
    /// Bit `i` is set if lane `i` of `left` is greater than that of `right`.
    fn greater(self, left: Self::Vector, right: Self::Vector) -> u32;
    /// Lane `i` of `chosen` if bit `i` is set, otherwise of `other`.
    fn select(self, bits: u32, chosen: Self::Vector, other: Self::Vector) -> Self::Vector;
    /// 2 to the power of each lane. Lanes must be integers from -126 to 127.
    fn power_of_two(self, exponent: Self::Vector) -> Self::Vector;

    /// Prefetches the cache line at the start of `from`.
    #[inline(always)]
    fn prefetch(self, from: &[f32]) {
        let _ = from;
    }

    /// Sum of the lanes, by repeated halving.
    #[inline(always)]
    fn sum(self, vector: Self::Vector) -> f32 {
        let mut lanes = [0.0; MAX_LANES];
        self.store(vector, &mut lanes);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The largest lane, by repeated halving. No lane may be NaN.
    #[inline(always)]
    fn largest(self, vector: Self::Vector) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
        self.store(vector, &mut lanes);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for lane in 0..half {
                let [left, right] = [lanes[lane], lanes[lane + half]];
                lanes[lane] = if left > right { left } else { right };
            }
            half /= 2;
        }
        lanes[0]
    }

    /// Exponential of each lane, after clamping to the range from -87 to 0.
    ///
    /// Cody-Waite reduction and the polynomial of Cephes `expf`, relative error below 2e-7.
    #[inline(always)]
    fn exp_negative(self, vector: Self::Vector) -> Self::Vector {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding and subtracting it rounds to an integer
        let x = self.max(self.min(vector, self.splat(0.0)), self.splat(-87.0));
        let shifted = self.mul_add(x, self.splat(std::f32::consts::LOG2_E), self.splat(ROUND));
        let whole = self.add(shifted, self.splat(-ROUND));
        let x = self.mul_add(whole, self.splat(-0.693_359_4), x);
        let x = self.mul_add(whole, self.splat(2.121_944_4e-4), x);
        let mut polynomial = self.splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            polynomial = self.mul_add(polynomial, x, self.splat(coefficient));
        }
        let square = self.mul(x, x);
        let value = self.add(self.mul_add(polynomial, square, x), self.splat(1.0));
        self.mul(value, self.power_of_two(whole))
    }
}

/// Number of lanes of the widest vector. Rows of tables are padded to a multiple of it.
pub(crate) const MAX_LANES: usize = 16;

/// Work that is compiled for each instruction set.
pub(super) trait Kernel {
    /// The result.
    type Output;
    /// Does the work. Implementations must be `#[inline(always)]`, so that they are compiled for the instruction set of the
    /// caller.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that the processor supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimdLevel(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl SimdLevel {
    /// The widest supported instruction set.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All supported instruction sets, the widest first.
    pub fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
                && std::arch::is_x86_feature_detected!("bmi1")
                && std::arch::is_x86_feature_detected!("popcnt");
            if avx2 && std::arch::is_x86_feature_detected!("avx512f") {
                levels.push(Self(Set::Avx512));
            }
            if avx2 {
                levels.push(Self(Set::Avx2));
            }
        }
        levels.push(Self(Set::Portable));
        levels
    }

    /// Name of the instruction set.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            Set::Portable => "portable",
        }
    }

    /// Number of values of a vector.
    pub(super) fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => avx512::Avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => avx2::Avx2::LANES,
            Set::Portable => portable::Portable::LANES,
        }
    }

    /// Runs `kernel` with this instruction set.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: `available` detected the features of these instruction sets.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { avx512::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { avx2::run(kernel) },
            Set::Portable => kernel.run(portable::Portable),
        }
    }
}
