//! Receivers of finished tiles.

use std::ops::ControlFlow;

use super::plan::Tile;
use crate::Result;
use laps_model::array::Array;

/// Receives finished tiles, in any order.
pub trait TileSink: Send {
    /// Whether a tile has to be computed; false for the tiles that an interrupted run has finished.
    fn wants(&mut self, tile: &Tile) -> bool {
        let _ = tile;
        true
    }

    /// Receives the similarities of a tile, `(images of the tile, captions of the tile)`. `Break` stops the run.
    ///
    /// # Errors
    /// Any error ends the run.
    fn accept(&mut self, tile: &Tile, similarities: &[f32]) -> Result<ControlFlow<()>>;
}

impl<F: FnMut(&Tile, &[f32]) -> Result<ControlFlow<()>> + Send> TileSink for F {
    fn accept(&mut self, tile: &Tile, similarities: &[f32]) -> Result<ControlFlow<()>> {
        self(tile, similarities)
    }
}

/// The matrix `(rows, columns)` of the tiles that `run` passes to its sink.
///
/// # Errors
/// Those of `run`.
pub fn whole_matrix<O, E: From<laps_model::Error>>(
    rows: usize,
    columns: usize,
    run: impl FnOnce(&mut dyn TileSink) -> Result<O, E>,
) -> Result<Array, E> {
    let mut matrix = vec![0.0; rows * columns];
    let mut sink = |tile: &Tile, similarities: &[f32]| {
        tile.copy_to(similarities, columns, &mut matrix);
        Ok(ControlFlow::Continue(()))
    };
    run(&mut sink)?;
    Ok(Array::new(&[rows, columns], matrix)?)
}
