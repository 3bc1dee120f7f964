//! Matrix product against a matrix packed into panels.
//!
//! Each element is one chain of fused multiply-adds over the width, from its first entry to its last, whatever the
//! size of the product it is part of: tiles and threads do not change a bit of it. A general library promises no such
//! thing, packs the tokens of an image again for each block of words, and is slower: on one core of an AMD EPYC with
//! AVX-512, 120 words by the tokens of 16 images of ViT-224 reach 241 GFLOP/s here, 88 % of what the registers do, and 152
//! with the crate matrixmultiply, 141 with gemm and its AVX-512 kernels, 100 with libtorch (benchmark `products`).

use std::ops::Range;

use super::{
    aligned::Aligned,
    simd::{Kernel, MOST_LANES, Simd},
};

/// Values of a panel that are worked on at once: 16 KiB stay in the first cache beside the rows and the next share.
const SHARE: usize = 4096;

/// Rows, all of one width, packed so that the entries of neighbouring rows lie side by side.
///
/// The layout is (panel, entry of the width, row of the panel); the last panel is filled up with zeros.
#[derive(Debug)]
pub(super) struct Panels {
    values: Aligned,
    width: usize,
    panel: usize,
    rows: usize,
}

impl Panels {
    /// Room for `rows` rows of `width`, for vectors of `lanes`.
    pub(super) fn new(rows: usize, width: usize, lanes: usize) -> Self {
        let panel = 2 * lanes;
        Self { values: Aligned::zeros(rows.div_ceil(panel) * panel * width), width, panel, rows }
    }

    /// Bytes that `new` takes for these sizes.
    pub(super) fn bytes(rows: usize, width: usize, lanes: usize) -> usize {
        Aligned::bytes(rows.next_multiple_of(2 * lanes) * width)
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

/// Packs rows of `width` for the left side of a [`Product`]: tiles of nearly equal height, in each of which the entries of
/// the rows lie side by side. A tile that begins with row `i` begins at `i * width`.
pub(super) struct Pack<'a> {
    /// Rows, one after another.
    pub(super) rows: &'a [f32],
    /// Entries of a row.
    pub(super) width: usize,
    /// As long as `rows`.
    pub(super) output: &'a mut [f32],
}

impl Kernel for Pack<'_> {
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

/// Rows in tiles of at most `most`, and of nearly equal height: a last tile of a row or two would leave the multipliers
/// idle.
#[inline(always)]
fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(most);
    (0..count).map(move |tile| tile * rows / count..(tile + 1) * rows / count)
}

/// `(rows, width)` by packed `(columns, width)` to `(rows, columns)`, of which some panels are computed.
pub(super) struct Product<'a> {
    /// Rows of the left side, as [`Pack`] writes them.
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
        // Entries of the width.
        let most = SHARE / (2 * S::LANES);
        for (column, panel) in self.panels.enumerate() {
            for start in (0..width).step_by(most) {
                let depth = most.min(width - start);
                let (packed, next) =
                    self.right.values[(panel * width + start) * 2 * S::LANES..].split_at(depth * 2 * S::LANES);
                let mut ahead = next.chunks(MOST_LANES).take(packed.len() / MOST_LANES);
                let share = packed.len() / MOST_LANES / rows.div_ceil(S::ROWS) + 1;
                for tile in tiles(rows, S::ROWS) {
                    for line in (&mut ahead).take(share) {
                        simd.prefetch(line);
                    }
                    let left = &self.left[tile.start * width + start * tile.len()..][..depth * tile.len()];
                    let output = &mut self.output[tile.start * self.stride + column * 2 * S::LANES..];
                    let part = PanelProduct { left, packed, stride: self.stride, fresh: start == 0 };
                    match tile.len() {
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
struct PanelProduct<'a> {
    left: &'a [f32],
    packed: &'a [f32],
    stride: usize,
    fresh: bool,
}

/// Entries of the width that one turn of the innermost loop works on.
const UNROLLED: usize = 4;

impl PanelProduct<'_> {
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(self, simd: S, output: &mut [f32]) {
        if ROWS > S::ROWS {
            return;
        }
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        if !self.fresh {
            for (row, sum) in sums.iter_mut().enumerate() {
                let from = &output[row * self.stride..][..2 * S::LANES];
                *sum = [simd.load(from), simd.load(&from[S::LANES..])];
            }
        }
        let mut left = self.left.chunks_exact(UNROLLED * ROWS);
        let mut right = self.packed.chunks_exact(UNROLLED * 2 * S::LANES);
        for (left, right) in (&mut left).zip(&mut right) {
            for entry in 0..UNROLLED {
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

/// Adds the products of one entry of the rows with one entry of the columns.
#[inline(always)]
fn add<S: Simd, const ROWS: usize>(simd: S, left: &[f32], right: &[f32], sums: &mut [[S::Vector; 2]; ROWS]) {
    let right = [simd.load(right), simd.load(&right[S::LANES..])];
    for row in 0..ROWS {
        let left = simd.splat(left[row]);
        sums[row][0] = simd.mul_add(left, right[0], sums[row][0]);
        sums[row][1] = simd.mul_add(left, right[1], sums[row][1]);
    }
}
