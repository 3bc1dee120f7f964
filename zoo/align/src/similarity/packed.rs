//! The engine's matrix product by itself, to be measured beside others.

use super::{
    plan::BLOCK_WORDS,
    product::{Pack, Panels, Product},
    simd::Level,
};
use crate::{Error, Result};

/// Rows that other rows are multiplied with, packed once: tokens of images.
#[derive(Debug)]
pub struct PackedRows {
    panels: Panels,
    level: Level,
}

impl PackedRows {
    /// Packs `rows`, `(rows, width)`.
    ///
    /// # Errors
    /// If `rows` are no whole rows.
    pub fn new(rows: &[f32], width: usize, level: Level) -> Result<Self> {
        if width == 0 || !rows.len().is_multiple_of(width) {
            return Err(bad(format!("rows of {width} values"), rows.len()));
        }
        let mut panels = Panels::new(rows.len() / width, width, level.lanes());
        rows.chunks_exact(width).enumerate().for_each(|(row, values)| panels.set(row, values));
        Ok(Self { panels, level })
    }

    /// Columns of a product: the rows, and zeros up to the end of a panel.
    pub fn columns(&self) -> usize {
        self.panels.padded()
    }

    /// `left` `(rows, width)` by these rows to `output` `(rows, columns)`: a block of words at a time, as the engine does
    /// it. `packed` is as long as `left`.
    ///
    /// # Errors
    /// If the lengths do not fit.
    pub fn multiply(&self, left: &[f32], packed: &mut [f32], output: &mut [f32]) -> Result<()> {
        let [width, stride] = [self.panels.width(), self.columns()];
        let rows = left.len() / width;
        if left.len() != rows * width || packed.len() != left.len() || output.len() != rows * stride {
            return Err(bad(format!("{rows} rows of {width} and of {stride}"), output.len()));
        }
        let block = BLOCK_WORDS * width;
        let blocks = left.chunks(block).zip(packed.chunks_mut(block)).zip(output.chunks_mut(BLOCK_WORDS * stride));
        for ((rows, packed), output) in blocks {
            self.level.run(Pack { rows, width, output: packed });
            let panels = 0..stride / self.panels.panel();
            self.level.run(Product { left: packed, right: &self.panels, panels, output, stride });
        }
        Ok(())
    }
}

fn bad(expected: String, found: usize) -> Error {
    Error::Operation { operation: "matmul", expected, found: format!("{found} values") }
}
