//! Rows packed as the right side of matrix products.

use std::ops::Range;

use super::{
    plan::BLOCK_WORDS,
    product::{PackRows, Panels, Product},
    simd::SimdLevel,
};
use crate::{Error, Result};

/// Rows that are packed once and multiplied with other rows.
#[derive(Debug)]
pub struct PackedRows {
    panels: Panels,
    level: SimdLevel,
}

impl PackedRows {
    /// Packs `rows`, `(rows, width)`.
    ///
    /// # Errors
    /// A number of values that is not a multiple of `width`.
    pub fn new(rows: &[f32], width: usize, level: SimdLevel) -> Result<Self> {
        if width == 0 || !rows.len().is_multiple_of(width) {
            return Err(invalid(format!("rows of {width} values"), rows.len()));
        }
        let mut panels = Panels::new(rows.len() / width, width, level.lanes());
        rows.chunks_exact(width).enumerate().for_each(|(row, values)| panels.set(row, values));
        Ok(Self { panels, level })
    }

    /// Number of packed rows.
    pub(super) fn rows(&self) -> usize {
        self.panels.rows()
    }

    /// Columns of a product: the packed rows, and zeros up to the end of the last panel.
    pub fn columns(&self) -> usize {
        self.panels.padded()
    }

    /// Multiplies `left` `(rows, width)` by the packed rows: `output` becomes `(rows, columns)`. Like the engine, it takes one
    /// block of words at a time. `packed` is a buffer of the size of `left`.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn multiply(&self, left: &[f32], packed: &mut [f32], output: &mut [f32]) -> Result<()> {
        let [width, stride] = [self.panels.width(), self.columns()];
        let rows = left.len() / width;
        if left.len() != rows * width || packed.len() != left.len() || output.len() != rows * stride {
            return Err(invalid(format!("{rows} rows of {width} and of {stride}"), output.len()));
        }
        let block = BLOCK_WORDS * width;
        let blocks = left.chunks(block).zip(packed.chunks_mut(block)).zip(output.chunks_mut(BLOCK_WORDS * stride));
        blocks.for_each(|((rows, packed), output)| self.multiply_block(rows, packed, output));
        Ok(())
    }

    /// The product of `left` `(rows, width)` and the packed rows, `(rows, columns)`.
    pub(super) fn product(&self, left: &[f32]) -> Vec<f32> {
        let mut output = vec![0.0; left.len() / self.panels.width() * self.columns()];
        let mut packed = vec![0.0; left.len()];
        self.multiply_block(left, &mut packed, &mut output);
        output
    }

    /// As [`multiply`](Self::multiply), for one block, whose sizes fit.
    pub(super) fn multiply_block(&self, rows: &[f32], packed: &mut [f32], output: &mut [f32]) {
        self.level.run(PackRows { rows, width: self.panels.width(), output: packed });
        self.multiply_packed(packed, output);
    }

    /// As [`multiply_block`](Self::multiply_block), for rows that [`PackRows`] has packed.
    pub(super) fn multiply_packed(&self, packed: &[f32], output: &mut [f32]) {
        let stride = self.columns();
        let panels: Range<usize> = 0..stride / self.panels.panel();
        self.level.run(Product { left: packed, right: &self.panels, panels, output, stride });
    }
}

fn invalid(expected: String, found: usize) -> Error {
    Error::Operation { operation: "matmul", expected, found: format!("{found} values") }
}
