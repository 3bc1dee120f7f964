//! Where the similarity matrix grows: in memory, or in a file that a later run goes on with.

use std::ops::Range;

use laps_align::{
    Scores, StoredScores,
    similarity::{Fingerprint, MatrixFile, Plan, Sink, Tile},
};

use super::Request;
use laps::EngineUsed;

use crate::{Error, Result, machine::Machine};

/// Images whose similarities are computed together at least: enough for every thread, few enough to hold.
const BLOCK: usize = 64;

/// The matrix `(images, captions)`, in blocks of whole rows.
pub(super) enum Matrix {
    /// In memory, for the ranks only.
    Held {
        /// Row by row.
        values: Vec<f32>,
        /// Its cut.
        plan: Plan,
    },
    /// In the file that `--sims` names.
    File(Box<MatrixFile>),
}

impl Matrix {
    /// A new matrix, or the unfinished one of an earlier run with the same `inputs`.
    ///
    /// # Errors
    /// If the unfinished file is of other inputs, or another process writes it.
    pub(super) fn open(request: &Request, [images, captions]: [usize; 2], inputs: &Fingerprint) -> Result<Self> {
        // Whole batches of images, so that a run which goes on encodes the same images together.
        let tile_images = BLOCK.next_multiple_of(request.batch_size.get());
        let plan =
            Plan { images, captions, tile_images, tile_captions: captions, block_words: 0, threads: 0, bytes: 0 };
        Ok(match &request.sims {
            None => Self::Held { values: vec![0.0; images * captions], plan },
            Some(path) => Self::File(Box::new(MatrixFile::open(path, &plan, inputs)?)),
        })
    }

    /// Whether what it has outlives the program.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The blocks that are still to be computed, in ascending order.
    pub(super) fn missing(&self) -> Vec<Tile> {
        match self {
            Self::Held { plan, .. } => (0..plan.len()).map(|index| plan.tile(index)).collect(),
            Self::File(file) => file.missing(),
        }
    }

    /// Number of all blocks.
    pub(super) fn blocks(&self) -> usize {
        match self {
            Self::Held { plan, .. } => plan.len(),
            Self::File(file) => file.plan().len(),
        }
    }

    /// Takes the rows of a block.
    pub(super) fn accept(&mut self, block: &Tile, rows: &[f32]) -> Result<()> {
        match self {
            Self::Held { values, plan } => {
                let Range { start, end } = block.images;
                values[start * plan.captions..end * plan.captions].copy_from_slice(rows);
            }
            // The file never asks to stop.
            Self::File(file) => _ = file.accept(block, rows)?,
        }
        Ok(())
    }

    /// What says that the user asked to stop, and how to go on.
    pub(super) fn interrupted(&self) -> Error {
        match self {
            Self::Held { .. } => Error::Interrupted {
                state: "nothing was kept".to_owned(),
                hint: "a run with `--sims FILE` goes on where it was",
            },
            Self::File(file) => Error::Interrupted {
                state: format!(
                    "{} of {} blocks of images are in `{}`",
                    file.finished_tiles(),
                    file.plan().len(),
                    file.partial().display()
                ),
                hint: "call it again to go on",
            },
        }
    }

    /// Lends the complete matrix to `read`; a file takes its place only when that has gone well.
    pub(super) fn finish<R>(self, read: impl FnOnce(&Scores) -> Result<R>) -> Result<R> {
        match self {
            Self::Held { values, plan } => read(&Scores::new(&values, plan.images, plan.captions)?),
            Self::File(file) => {
                let stored: StoredScores = file.stored()?;
                let result = read(&Scores::from_file(&stored)?)?;
                file.finish()?;
                Ok(result)
            }
        }
    }
}

/// What the bits of a matrix hang on: what it is computed of, what computes it, and how many threads and images together.
pub(super) struct Inputs<'a> {
    pub(super) request: &'a Request,
    pub(super) checkpoint_sha256: &'a str,
    pub(super) data_sha256: &'a str,
    pub(super) tokens: &'a [Vec<u32>],
    pub(super) engine: &'a EngineUsed,
    pub(super) similarity: &'a str,
}

impl Inputs<'_> {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let Self { request, engine, .. } = self;
        let tokens: Vec<u8> = self
            .tokens
            .iter()
            .flat_map(|caption| std::iter::once(caption.len() as u32).chain(caption.iter().copied()))
            .flat_map(u32::to_le_bytes)
            .collect();
        Fingerprint::of(&[
            b"reproduce 1",
            env!("CARGO_PKG_VERSION").as_bytes(),
            request.entry.config_sha256.as_bytes(),
            self.checkpoint_sha256.as_bytes(),
            self.data_sha256.as_bytes(),
            &tokens,
            engine.to_string().as_bytes(),
            self.similarity.as_bytes(),
            Machine::here().processor.as_bytes(),
            &request.threads.to_le_bytes(),
            &request.batch_size.get().to_le_bytes(),
        ])
    }
}
