//! The similarity matrix during a run: in memory, or in a file that a later run can resume.

use std::{ops::Range, rc::Rc};

use laps_align::{
    Scores, StoredScores,
    similarity::{Fingerprint, MatrixFile, Plan, Tile, TileSink},
};

use super::ReproduceRequest;
use laps::{EngineUsed, RankGroup, share};

use crate::{Error, Result, machine::Machine};

/// Smallest number of images per block: enough work for every thread, and little memory.
const BLOCK: usize = 64;

/// The matrix `(images, captions)`, in blocks of whole rows that the ranks of a group share.
pub(super) struct SimilarityMatrix {
    group: Rc<dyn RankGroup>,
    /// All blocks.
    plan: Plan,
    /// Blocks of each rank that this run computes, ascending.
    shares: Vec<Vec<Tile>>,
    /// Blocks of this rank that were accepted.
    accepted: usize,
    rows: Rows,
}

/// Where the rows of this rank go.
enum Rows {
    /// In memory, for the ranks only: the rows of this rank.
    Own(Vec<f32>),
    /// To rank 0, which is this one, in memory.
    Memory(Vec<f32>),
    /// To rank 0, which is this one, in the file [`ReproduceRequest::sims`].
    File(Box<MatrixFile>),
    /// To rank 0, which is another one.
    Remote,
}

/// The complete matrix, as far as a rank has it.
pub(super) enum FinishedMatrix {
    /// This rank has all of it.
    Whole(WholeMatrix),
    /// Each rank has the rows of its images.
    Parts {
        /// The rows of this rank.
        values: Vec<f32>,
        /// Images of each rank.
        shares: Vec<Range<usize>>,
    },
    /// Rank 0 has it.
    Remote,
}

/// A complete matrix in memory or in a file.
pub(super) enum WholeMatrix {
    Memory { values: Vec<f32>, images: usize, captions: usize },
    File(Box<MatrixFile>),
}

impl SimilarityMatrix {
    /// A new matrix, or the partial one of an earlier run with the same `inputs`. Rows stay in the memory of their rank,
    /// unless the request writes them to files.
    ///
    /// # Errors
    /// If the partial file has other inputs, or another process writes it; a rank that failed or does not answer.
    pub(super) fn open(
        request: &ReproduceRequest,
        [images, captions]: [usize; 2],
        inputs: &Fingerprint,
    ) -> Result<Self> {
        let group = Rc::clone(&request.group);
        // Whole batches of images, so that a resumed run forms the same batches.
        let tile_images = BLOCK.next_multiple_of(request.batch_size.get());
        let plan =
            Plan { images, captions, tile_images, tile_captions: captions, block_words: 0, threads: 0, bytes: 0 };
        let all = || (0..plan.len()).collect::<Vec<_>>();
        let is_first = group.rank() == 0;
        let (rows, missing) = match &request.sims {
            Some(path) => {
                let file = match is_first {
                    true => Some(MatrixFile::open(path, &plan, inputs)?),
                    false => None,
                };
                // Only rank 0 has the file.
                let missing = file.as_ref().map_or_else(Vec::new, MatrixFile::missing);
                let missing: Vec<usize> = missing.iter().map(|block| block.images.start / tile_images).collect();
                let missing = numbers_of_first(group.as_ref(), &missing)?;
                (file.map_or(Rows::Remote, |file| Rows::File(Box::new(file))), missing)
            }
            None if !request.needs_whole_matrix() => (Rows::Own(Vec::new()), all()),
            None if is_first => (Rows::Memory(vec![0.0; images * captions]), all()),
            None => (Rows::Remote, all()),
        };
        let world_size = group.world_size();
        let shares = (0..world_size).map(|rank| &missing[share(missing.len(), rank, world_size)]);
        let shares = shares.map(|share| share.iter().map(|&index| plan.tile(index)).collect()).collect();
        Ok(Self { group, plan, shares, accepted: 0, rows })
    }

    /// Number of blocks in the file, from which a later run can resume; None without a file.
    pub(super) fn saved(&self) -> Option<usize> {
        match &self.rows {
            Rows::File(file) => Some(file.finished_tiles()),
            _ => None,
        }
    }

    /// The missing blocks of this rank, in ascending order.
    pub(super) fn missing(&self) -> Vec<Tile> {
        self.shares[self.group.rank()].clone()
    }

    /// The missing blocks of all ranks.
    pub(super) fn missing_of_all(&self) -> Vec<Tile> {
        self.shares.concat()
    }

    /// Total number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.plan.len()
    }

    /// Takes the rows of the next block of this rank. Where rank 0 has the matrix, the ranks pass their blocks on in
    /// rounds, one block of each rank.
    ///
    /// # Errors
    /// A file that cannot be written, and a rank that failed or does not answer.
    pub(super) fn accept(&mut self, rows: &[f32]) -> Result<()> {
        if let Rows::Own(values) = &mut self.rows {
            values.extend_from_slice(rows);
        } else {
            self.exchange(rows)?;
        }
        self.accepted += 1;
        Ok(())
    }

    /// One round: the rows of a block of each rank that has one left.
    fn exchange(&mut self, own: &[f32]) -> Result<()> {
        let Self { plan: Plan { captions, .. }, shares, accepted, .. } = self;
        let blocks: Vec<Option<&Tile>> = shares.iter().map(|share| share.get(*accepted)).collect();
        let count = |block: &Option<&Tile>| block.map_or(0, |block| block.images.len() * *captions);
        let counts: Vec<usize> = blocks.iter().map(count).collect();
        let gathered;
        let mut rest = match self.group.world_size() {
            1 => own,
            _ => {
                gathered = self.group.all_gather_f32(own, &counts)?;
                &gathered
            }
        };
        for block in blocks.into_iter().flatten() {
            let (rows, others) = rest.split_at(block.images.len() * *captions);
            rest = others;
            match &mut self.rows {
                Rows::Memory(values) => {
                    values[block.images.start * *captions..block.images.end * *captions].copy_from_slice(rows);
                }
                // A file never asks to stop.
                Rows::File(file) => _ = file.accept(block, rows)?,
                Rows::Own(_) | Rows::Remote => {}
            }
        }
        Ok(())
    }

    /// The error of an interrupted run: what is saved, and how to resume.
    pub(super) fn interrupted(&self) -> Error {
        match &self.rows {
            Rows::File(file) => Error::Interrupted {
                state: format!(
                    "{} of {} blocks of images are saved in `{}`",
                    file.finished_tiles(),
                    file.plan().len(),
                    file.partial().display()
                ),
                hint: "run it again with the same arguments to resume",
            },
            _ => Error::Interrupted {
                state: "nothing was saved".to_owned(),
                hint: "a run that writes its similarity matrix to a file can be resumed",
            },
        }
    }

    /// The complete matrix, after every rank has accepted its blocks.
    ///
    /// # Errors
    /// A file that cannot be written, and a rank that failed or does not answer.
    pub(super) fn finish(mut self) -> Result<FinishedMatrix> {
        let rounds = self.shares.iter().map(Vec::len).max().unwrap_or(0);
        while !matches!(self.rows, Rows::Own(_)) && self.accepted < rounds {
            self.accept(&[])?;
        }
        let Plan { images, captions, .. } = self.plan;
        Ok(match self.rows {
            Rows::Own(values) if self.group.world_size() == 1 => {
                FinishedMatrix::Whole(WholeMatrix::Memory { values, images, captions })
            }
            Rows::Own(values) => {
                let mut start = 0;
                let shares = self.shares.iter().map(|blocks| {
                    let end = blocks.last().map_or(start, |block| block.images.end);
                    std::mem::replace(&mut start, end)..end
                });
                FinishedMatrix::Parts { values, shares: shares.collect() }
            }
            Rows::Memory(values) => FinishedMatrix::Whole(WholeMatrix::Memory { values, images, captions }),
            Rows::File(file) => FinishedMatrix::Whole(WholeMatrix::File(file)),
            Rows::Remote => FinishedMatrix::Remote,
        })
    }
}

/// The numbers of rank 0; the other ranks have none.
fn numbers_of_first(group: &dyn RankGroup, own: &[usize]) -> Result<Vec<usize>> {
    let counts = group.all_gather_u32(&[own.len() as u32], &vec![1; group.world_size()])?;
    let counts: Vec<usize> = counts.into_iter().map(|count| count as usize).collect();
    let own: Vec<u32> = own.iter().map(|&index| index as u32).collect();
    Ok(group.all_gather_u32(&own, &counts)?.into_iter().map(|index| index as usize).collect())
}

impl WholeMatrix {
    /// Passes the matrix to `read`. A file gets its final name only if `read` succeeds.
    pub(super) fn read<R>(self, read: impl FnOnce(&Scores) -> Result<R>) -> Result<R> {
        match self {
            Self::Memory { values, images, captions } => read(&Scores::new(&values, images, captions)?),
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
