//! Where finished tiles go.

use std::ops::ControlFlow;

use super::plan::Tile;
use crate::Result;

/// Takes finished tiles, in whatever order they are finished.
pub trait Sink: Send {
    /// Whether a tile is still to be computed: a run that was interrupted answers for what it has already.
    fn wants(&mut self, tile: &Tile) -> bool {
        let _ = tile;
        true
    }

    /// Takes the similarities of a tile, `(images of the tile, captions of the tile)`, and says whether to go on.
    fn accept(&mut self, tile: &Tile, similarities: &[f32]) -> Result<ControlFlow<()>>;
}

impl<F: FnMut(&Tile, &[f32]) -> Result<ControlFlow<()>> + Send> Sink for F {
    fn accept(&mut self, tile: &Tile, similarities: &[f32]) -> Result<ControlFlow<()>> {
        self(tile, similarities)
    }
}
