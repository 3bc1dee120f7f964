//! Matrix product against a matrix packed into panels.
//!
//! Each element is one chain of fused multiply-adds over the width, from its first entry to its last, whatever the
//! size of the product it is part of: tiles and threads do not change a bit of it.

use std::ops::Range;

use super::simd::{Kernel, Simd};

/// Entries of the width that are worked on at once: a panel's share of them (AVX2: 16 KiB) stays in the first cache.
const DEPTH: usize = 256;

/// Rows, all of one width, packed so that the entries of neighbouring rows lie side by side.
///
/// The layout is (panel, entry of the width, row of the panel); the last panel is filled up with zeros.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    values: Vec<f32>,
    width: usize,
    panel: usize,
    rows: usize,
}

impl Panels {
    /// Room for `rows` rows of `width`, for vectors of `lanes`.
    pub(super) fn new(rows: usize, width: usize, lanes: usize) -> Self {
        let panel = 2 * lanes;
        Self { values: vec![0.0; rows.div_ceil(panel) * panel * width], width, panel, rows }
    }

    /// Bytes that `new` takes for these sizes.
    pub(super) fn bytes(rows: usize, width: usize, lanes: usize) -> usize {
        4 * rows.next_multiple_of(2 * lanes) * width
    }

    /// Rows, up to the end of the last panel.
    pub(super) fn padded(&self) -> usize {
        self.rows.next_multiple_of(self.panel)
    }

    /// Entries of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Rows in a panel.
    pub(super) fn panel(&self) -> usize {
        self.panel
    }

    /// Rows in all.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Sets one row.
    pub(super) fn set(&mut self, row: usize, values: &[f32]) {
        let start = row / self.panel * self.panel * self.width + row % self.panel;
        for (slot, &value) in self.values[start..].iter_mut().step_by(self.panel).zip(values) {
            *slot = value;
        }
    }

    /// Adds `factor` times a row to `sum`.
    pub(super) fn add_row(&self, row: usize, factor: f32, sum: &mut [f32]) {
        let start = row / self.panel * self.panel * self.width + row % self.panel;
        for (slot, &value) in sum.iter_mut().zip(self.values[start..].iter().step_by(self.panel)) {
            *slot += factor * value;
        }
    }
}

/// `(rows, width)` by packed `(columns, width)` to `(rows, columns)`, of which some panels are computed.
pub(super) struct Product<'a> {
    /// Rows of the left side, one after another.
    pub(super) left: &'a [f32],
    /// The right side.
    pub(super) right: &'a Panels,
    /// Panels of the right side to compute.
    pub(super) panels: Range<usize>,
    /// Rows of the result; the first panel's columns go to the front of each.
    pub(super) output: &'a mut [f32],
    /// Distance between rows of the result, at least the width of all panels.
    pub(super) stride: usize,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.right.width;
        let rows = self.left.len() / width;
        if rows == 0 {
            return;
        }
        // Tiles of nearly equal height: a last tile of a row or two would leave the multipliers idle.
        let tiles = rows.div_ceil(S::ROWS);
        for (column, panel) in self.panels.enumerate() {
            for start in (0..width).step_by(DEPTH) {
                let depth = DEPTH.min(width - start);
                let packed = &self.right.values[(panel * width + start) * 2 * S::LANES..][..depth * 2 * S::LANES];
                for tile in 0..tiles {
                    let first = tile * rows / tiles;
                    let tile_rows = (tile + 1) * rows / tiles - first;
                    let left = &self.left[first * width + start..];
                    let output = &mut self.output[first * self.stride + column * 2 * S::LANES..];
                    let part = Part { left, width, packed, stride: self.stride, fresh: start == 0 };
                    match tile_rows {
                        1 => part.tile::<S, 1>(simd, output),
                        2 => part.tile::<S, 2>(simd, output),
                        3 => part.tile::<S, 3>(simd, output),
                        4 => part.tile::<S, 4>(simd, output),
                        5 => part.tile::<S, 5>(simd, output),
                        6 => part.tile::<S, 6>(simd, output),
                        7 => part.tile::<S, 7>(simd, output),
                        8 => part.tile::<S, 8>(simd, output),
                        9 => part.tile::<S, 9>(simd, output),
                        10 => part.tile::<S, 10>(simd, output),
                        11 => part.tile::<S, 11>(simd, output),
                        _ => part.tile::<S, 12>(simd, output),
                    }
                }
            }
        }
    }
}

/// One panel's share of the width against the rows of a tile.
#[derive(Clone, Copy)]
struct Part<'a> {
    left: &'a [f32],
    width: usize,
    packed: &'a [f32],
    stride: usize,
    fresh: bool,
}

impl Part<'_> {
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(self, simd: S, output: &mut [f32]) {
        if ROWS > S::ROWS {
            return;
        }
        let depth = self.packed.len() / (2 * S::LANES);
        let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &self.left[row * self.width..][..depth]);
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        if !self.fresh {
            for (row, sum) in sums.iter_mut().enumerate() {
                let from = &output[row * self.stride..][..2 * S::LANES];
                *sum = [simd.load(from), simd.load(&from[S::LANES..])];
            }
        }
        for (entry, right) in self.packed.chunks_exact(2 * S::LANES).enumerate() {
            let right = [simd.load(right), simd.load(&right[S::LANES..])];
            for row in 0..ROWS {
                let left = simd.splat(rows[row][entry]);
                sums[row][0] = simd.mul_add(left, right[0], sums[row][0]);
                sums[row][1] = simd.mul_add(left, right[1], sums[row][1]);
            }
        }
        for (row, sum) in sums.iter().enumerate() {
            let to = &mut output[row * self.stride..][..2 * S::LANES];
            simd.store(sum[0], to);
            simd.store(sum[1], &mut to[S::LANES..]);
        }
    }
}
