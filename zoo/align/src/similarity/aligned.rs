//! Memory for vector loads.

use std::ops::{Deref, DerefMut};

/// f32 values that start at a cache line, so that the load of a vector never touches two lines.
#[derive(Debug)]
pub(super) struct AlignedVec {
    values: Vec<f32>,
    start: usize,
    length: usize,
}

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

impl AlignedVec {
    pub(super) fn zeros(length: usize) -> Self {
        let values = vec![0.0f32; length + CACHE_LINE / 4];
        // `align_offset` may fail and then returns a number out of range. Unaligned values are slower but correct.
        let start = Some(values.as_ptr().align_offset(CACHE_LINE)).filter(|&start| start < CACHE_LINE / 4).unwrap_or(0);
        Self { values, start, length }
    }

    pub(super) fn bytes(length: usize) -> usize {
        4 * length + CACHE_LINE
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.length]
    }
}

impl DerefMut for AlignedVec {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.length]
    }
}
