//! The similarity matrix during a run: in memory, or in a file that a later run can resume.

use std::ops::Range;

use laps_align::{
    Scores, StoredScores,
    similarity::{Fingerprint, MatrixFile, Plan, Tile, TileSink},
};

use super::ReproduceRequest;
use laps::EngineUsed;

use crate::{Error, Result, machine::Machine};

/// Smallest number of images per block: enough work for every thread, and little memory.
const BLOCK: usize = 64;

/// The matrix `(images, captions)`, in blocks of whole rows.
pub(super) enum SimilarityMatrix {
    /// In memory, for the ranks only.
    Memory {
        /// The values, row by row.
        values: Vec<f32>,
        /// Its blocks.
        plan: Plan,
    },
    /// In the file [`ReproduceRequest::sims`].
    File(Box<MatrixFile>),
}

impl SimilarityMatrix {
    /// A new matrix, or the partial one of an earlier run with the same `inputs`.
    ///
    /// # Errors
    /// If the partial file has other inputs, or another process writes it.
    pub(super) fn open(
        request: &ReproduceRequest,
        [images, captions]: [usize; 2],
        inputs: &Fingerprint,
    ) -> Result<Self> {
        // Whole batches of images, so that a resumed run forms the same batches.
        let tile_images = BLOCK.next_multiple_of(request.batch_size.get());
        let plan =
            Plan { images, captions, tile_images, tile_captions: captions, block_words: 0, threads: 0, bytes: 0 };
        Ok(match &request.sims {
            None => Self::Memory { values: vec![0.0; images * captions], plan },
            Some(path) => Self::File(Box::new(MatrixFile::open(path, &plan, inputs)?)),
        })
    }

    /// Whether a later run can resume it.
    pub(super) fn is_resumable(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The missing blocks, in ascending order.
    pub(super) fn missing(&self) -> Vec<Tile> {
        match self {
            Self::Memory { plan, .. } => (0..plan.len()).map(|index| plan.tile(index)).collect(),
            Self::File(file) => file.missing(),
        }
    }

    /// Total number of blocks.
    pub(super) fn blocks(&self) -> usize {
        match self {
            Self::Memory { plan, .. } => plan.len(),
            Self::File(file) => file.plan().len(),
        }
    }

    /// Stores the rows of a block.
    pub(super) fn accept(&mut self, block: &Tile, rows: &[f32]) -> Result<()> {
        match self {
            Self::Memory { values, plan } => {
                let Range { start, end } = block.images;
                values[start * plan.captions..end * plan.captions].copy_from_slice(rows);
            }
            // A file never asks to stop.
            Self::File(file) => _ = file.accept(block, rows)?,
        }
        Ok(())
    }

    /// The error of an interrupted run: what is saved, and how to resume.
    pub(super) fn interrupted(&self) -> Error {
        match self {
            Self::Memory { .. } => Error::Interrupted {
                state: "nothing was saved".to_owned(),
                hint: "a run that writes its similarity matrix to a file can be resumed",
            },
            Self::File(file) => Error::Interrupted {
                state: format!(
                    "{} of {} blocks of images are saved in `{}`",
                    file.finished_tiles(),
                    file.plan().len(),
                    file.partial().display()
                ),
                hint: "run it again with the same arguments to resume",
            },
        }
    }

    /// Passes the complete matrix to `read`. A file gets its final name only if `read` succeeds.
    pub(super) fn finish<R>(self, read: impl FnOnce(&Scores) -> Result<R>) -> Result<R> {
        match self {
            Self::Memory { values, plan } => read(&Scores::new(&values, plan.images, plan.captions)?),
            Self::File(file) => {
                let stored: StoredScores = file.stored()?;
                let result = read(&Scores::from_file(&stored)?)?;
                file.finish()?;
                Ok(result)
            }
        }
    }
}

/// Everything that determines the bits of a matrix: inputs, engine, machine, number of threads and batch size.
pub(super) struct MatrixInputs<'a> {
    pub(super) request: &'a ReproduceRequest,
    pub(super) checkpoint_sha256: &'a str,
    pub(super) data_sha256: &'a str,
    pub(super) tokens: &'a [Vec<u32>],
    pub(super) engine: &'a EngineUsed,
    pub(super) similarity: &'a str,
}

impl MatrixInputs<'_> {
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
