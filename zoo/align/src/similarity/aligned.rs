//! Memory that vectors are loaded from.

use std::ops::{Deref, DerefMut};

/// Values of f32 that begin at a cache line: a load of a whole vector then never touches two.
#[derive(Debug)]
pub(super) struct Aligned {
    values: Vec<f32>,
    start: usize,
    length: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl Aligned {
    pub(super) fn zeros(length: usize) -> Self {
        let values = vec![0.0f32; length + LINE / 4];
        // An offset that cannot be found is reported as a number out of range; without one the values are only slower.
        let start = Some(values.as_ptr().align_offset(LINE)).filter(|&start| start < LINE / 4).unwrap_or(0);
        Self { values, start, length }
    }

    pub(super) fn bytes(length: usize) -> usize {
        4 * length + LINE
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.length]
    }
}
