//! Matrix product with a right side that is packed into panels.
//!
//! Each element is one chain of fused multiply-adds over the width, from the first value to the last, whatever the size of
//! the product: tiles and threads do not change its bits. General libraries do not guarantee that, pack the tokens of an
//! image again for each block of words, and are slower. On one core of an AMD EPYC with AVX-512, the product of 120 words
//! and the tokens of 16 images of ViT-224 reaches 241 GFLOP/s, 88 % of the peak of the registers; the crate matrixmultiply
//! reaches 152, gemm with its AVX-512 kernels 141, and libtorch 100 (benchmark `products`).

use std::ops::Range;

use super::{
    aligned::AlignedVec,
    simd::{Kernel, MAX_LANES, Simd},
};

/// Number of values of a panel that are multiplied at once: 16 KiB stay in the first-level cache together with the rows and
/// the next block.
const BLOCK_VALUES: usize = 4096;

/// Rows of the same width, packed so that the values of neighbouring rows are adjacent.
///
/// The layout is (panel, value of the row, row of the panel). The last panel is padded with zeros.
#[derive(Debug)]
pub(super) struct Panels {
    values: AlignedVec,
    width: usize,
    panel: usize,
    rows: usize,
}

impl Panels {
    /// Zeros for `rows` rows of `width`, for vectors of `lanes` lanes.
    pub(super) fn new(rows: usize, width: usize, lanes: usize) -> Self {
        let panel = 2 * lanes;
        Self { values: AlignedVec::zeros(rows.div_ceil(panel) * panel * width), width, panel, rows }
    }

    /// Bytes of the panels.
    pub(super) fn bytes(rows: usize, width: usize, lanes: usize) -> usize {
        AlignedVec::bytes(rows.next_multiple_of(2 * lanes) * width)
    }

    /// Number of rows, including the padding of the last panel.
    pub(super) fn padded(&self) -> usize {
        self.rows.next_multiple_of(self.panel)
    }

    /// Number of values of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Number of rows of a panel.
    pub(super) fn panel(&self) -> usize {
        self.panel
    }

    /// Number of rows, without padding.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Sets a row.
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

/// Packs rows of `width` for the left side of a [`Product`]: in tiles of nearly equal height, in each of which the values of
/// the rows are interleaved. A tile that starts with row `i` starts at value `i * width`.
pub(super) struct PackRows<'a> {
    /// The rows.
    pub(super) rows: &'a [f32],
    /// Number of values of a row.
    pub(super) width: usize,
    /// The packed rows; as long as `rows`.
    pub(super) output: &'a mut [f32],
}

impl Kernel for PackRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let count = self.rows.len() / self.width;
        for tile in tiles(count, S::ROWS) {
            let range = tile.start * self.width..tile.end * self.width;
            let output = &mut self.output[range.clone()];
            for (row, values) in self.rows[range].chunks_exact(self.width).enumerate() {
                output[row..].iter_mut().step_by(tile.len()).zip(values).for_each(|(slot, &value)| *slot = value);
            }
        }
    }
}

/// Divides rows into tiles of at most `max_height` and of nearly equal height. A last tile of one or two rows would not keep
/// the multipliers busy.
#[inline(always)]
fn tiles(rows: usize, max_height: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(max_height);
    (0..count).map(move |tile| tile * rows / count..(tile + 1) * rows / count)
}

/// Multiplies `(rows, width)` by packed `(columns, width)` to `(rows, columns)`, for a range of panels.
pub(super) struct Product<'a> {
    /// Left side, packed by [`PackRows`].
    pub(super) left: &'a [f32],
    /// Right side.
    pub(super) right: &'a Panels,
    /// Panels of the right side.
    pub(super) panels: Range<usize>,
    /// Rows of the result. The columns of the first panel come first.
    pub(super) output: &'a mut [f32],
    /// Distance between rows of the result, at least the columns of all panels.
    pub(super) stride: usize,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.right.width;
        let rows = self.left.len() / width;
        let max_depth = BLOCK_VALUES / (2 * S::LANES);
        for (column, panel) in self.panels.enumerate() {
            for start in (0..width).step_by(max_depth) {
                let depth = max_depth.min(width - start);
                let (packed, next) =
                    self.right.values[(panel * width + start) * 2 * S::LANES..].split_at(depth * 2 * S::LANES);
                // Each tile prefetches its share of the next block.
                let mut lines = next.chunks(MAX_LANES).take(packed.len() / MAX_LANES);
                let share = packed.len() / MAX_LANES / rows.div_ceil(S::ROWS) + 1;
                for tile in tiles(rows, S::ROWS) {
                    for line in (&mut lines).take(share) {
                        simd.prefetch(line);
                    }
                    let left = &self.left[tile.start * width + start * tile.len()..][..depth * tile.len()];
                    let output = &mut self.output[tile.start * self.stride + column * 2 * S::LANES..];
                    let block = PanelProduct { left, packed, stride: self.stride, overwrite: start == 0 };
                    match tile.len() {
                        1 => block.tile::<S, 1>(simd, output),
                        2 => block.tile::<S, 2>(simd, output),
                        3 => block.tile::<S, 3>(simd, output),
                        4 => block.tile::<S, 4>(simd, output),
                        5 => block.tile::<S, 5>(simd, output),
                        6 => block.tile::<S, 6>(simd, output),
                        7 => block.tile::<S, 7>(simd, output),
                        8 => block.tile::<S, 8>(simd, output),
                        9 => block.tile::<S, 9>(simd, output),
                        10 => block.tile::<S, 10>(simd, output),
                        11 => block.tile::<S, 11>(simd, output),
                        _ => block.tile::<S, 12>(simd, output),
                    }
                }
            }
        }
    }
}

/// Product of a block of a panel with the rows of a tile.
#[derive(Clone, Copy)]
struct PanelProduct<'a> {
    left: &'a [f32],
    packed: &'a [f32],
    stride: usize,
    /// Whether the result replaces the output; otherwise it is added.
    overwrite: bool,
}

/// Values of a row that one iteration of the innermost loop multiplies.
const UNROLL: usize = 4;

impl PanelProduct<'_> {
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(self, simd: S, output: &mut [f32]) {
        if ROWS > S::ROWS {
            return;
        }
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        if !self.overwrite {
            for (row, sum) in sums.iter_mut().enumerate() {
                let from = &output[row * self.stride..][..2 * S::LANES];
                *sum = [simd.load(from), simd.load(&from[S::LANES..])];
            }
        }
        let mut left = self.left.chunks_exact(UNROLL * ROWS);
        let mut right = self.packed.chunks_exact(UNROLL * 2 * S::LANES);
        for (left, right) in (&mut left).zip(&mut right) {
            for entry in 0..UNROLL {
                add::<S, ROWS>(simd, &left[entry * ROWS..], &right[entry * 2 * S::LANES..], &mut sums);
            }
        }
        let rest = right.remainder().chunks_exact(2 * S::LANES);
        for (left, right) in left.remainder().chunks_exact(ROWS).zip(rest) {
            add::<S, ROWS>(simd, left, right, &mut sums);
        }
        for (row, sum) in sums.iter().enumerate() {
            let to = &mut output[row * self.stride..][..2 * S::LANES];
            simd.store(sum[0], to);
            simd.store(sum[1], &mut to[S::LANES..]);
        }
    }
}

/// Adds the products of one value of each row with one value of each column.
#[inline(always)]
fn add<S: Simd, const ROWS: usize>(simd: S, left: &[f32], right: &[f32], sums: &mut [[S::Vector; 2]; ROWS]) {
    let right = [simd.load(right), simd.load(&right[S::LANES..])];
    for row in 0..ROWS {
        let left = simd.splat(left[row]);
        sums[row][0] = simd.mul_add(left, right[0], sums[row][0]);
        sums[row][1] = simd.mul_add(left, right[1], sums[row][1]);
    }
}
