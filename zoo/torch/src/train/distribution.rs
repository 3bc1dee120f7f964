//! A batch that is split over the ranks of a process group.
//!
//! Each rank encodes its rows. The embeddings of all ranks are gathered, so the loss sees the whole batch; each rank passes
//! the gradient of its own rows on, and the gradients of the weights are summed in [`GradientBuckets`].
//!
//! [`GradientBuckets`]: super::gradient_buckets::GradientBuckets

use std::{ops::Range, time::Duration};

use laps::share;
use sha2::{Digest, Sha256};
use tch::Tensor as Tch;

use super::{AdamW, Weights, objective::BatchEmbeddings, split::TokenizedSplit, weights::download};
use crate::{
    Result,
    distributed::{Collective, DistributedError},
};

/// The pairs of a batch that a rank encodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RankRows {
    /// Pairs of a part of the batch that has a loss of its own.
    part: usize,
    /// Those of this rank.
    rows: Range<usize>,
}

impl RankRows {
    /// The rows of a rank in parts of `part` pairs.
    pub(super) fn new(group: &Collective, part: usize) -> Result<Self, DistributedError> {
        let (rank, world_size) = (group.rank(), group.world_size());
        if part < world_size {
            return Err(DistributedError::SmallBatch { batch_size: part, world_size });
        }
        Ok(Self { part, rows: share(part, rank, world_size) })
    }

    /// Positions of the rows in a batch of `pairs` pairs.
    pub(super) fn positions(&self, pairs: usize) -> impl Iterator<Item = usize> + '_ {
        (0..pairs / self.part).flat_map(move |part| self.rows.clone().map(move |row| part * self.part + row))
    }

    /// Number of rows in a batch of `pairs` pairs.
    pub(super) fn count(&self, pairs: usize) -> usize {
        pairs / self.part * self.rows.len()
    }
}

/// Embeddings of all ranks, detached.
pub(super) struct GlobalBatch {
    pub(super) embeddings: BatchEmbeddings,
    /// Image of each pair.
    pub(super) image_ids: Vec<u64>,
    /// Pairs of this rank.
    pub(super) local: Range<usize>,
}

impl GlobalBatch {
    /// Gathers the embeddings of all ranks in the order of the ranks, which is that of the batch.
    pub(super) fn gather(group: &Collective, own: BatchEmbeddings, image_ids: &[u64]) -> Result<Self> {
        let count = image_ids.len();
        if !group.communicates() {
            return Ok(Self { embeddings: own, image_ids: image_ids.to_vec(), local: 0..count });
        }
        let pairs: Vec<usize> = group.all_gather_number(count as i64)?.iter().map(|&count| count as usize).collect();
        let device = own.images.device();
        let ids = image_ids.iter().map(|&id| id.cast_signed());
        let columns: Vec<i64> = ids.zip(&own.lengths).flat_map(|(id, &length)| [id, length as i64]).collect();
        let columns = Tch::f_from_slice(&columns)?.f_reshape([-1, 2])?.f_to_device(device)?;
        let columns = group.all_gather_rows(&columns, &pairs)?.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?;
        let columns: Vec<i64> = Vec::try_from(&columns)?;
        let (columns, _) = columns.as_chunks::<2>();
        let lengths: Vec<usize> = columns.iter().map(|&[_, length]| length as usize).collect();

        let mut start = 0;
        let mut words = Vec::with_capacity(pairs.len());
        for &count in &pairs {
            words.push(lengths[start..start + count].iter().sum());
            start += count;
        }
        let first: usize = pairs[..group.rank()].iter().sum();
        Ok(Self {
            embeddings: BatchEmbeddings {
                images: group.all_gather_rows(&own.images, &pairs)?,
                words: group.all_gather_rows(&own.words, &words)?,
                logits: own.logits.as_ref().map(|logits| group.all_gather_rows(logits, &pairs)).transpose()?,
                lengths,
                aggregation: own.aggregation,
            },
            image_ids: columns.iter().map(|&[id, _]| id.cast_unsigned()).collect(),
            local: first..first + count,
        })
    }
}

/// Gives all ranks the weights and the optimizer state of rank 0.
pub(super) fn broadcast_state(group: &Collective, weights: &Weights, optimizer: &AdamW) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let values = weights.buckets.iter().map(|bucket| &bucket.values);
    values.chain(optimizer.flat_moments()).try_for_each(|tensor| group.broadcast(tensor, 0))
}

/// Fails if the weights have other bits on any rank, for example because its processor computes differently.
pub(super) fn require_equal_weights(group: &Collective, weights: &Weights) -> Result<()> {
    if !group.communicates() {
        return Ok(());
    }
    let mut hasher = Sha256::new();
    for weight in &weights.list {
        download(&weight.tensor)?.values().iter().for_each(|value| hasher.update(value.to_le_bytes()));
    }
    group.require_equal("weights", &laps_files::hex(&hasher.finalize()))
}

/// Hash of a split: captions as tokens, ids, names and sizes of the images.
pub(super) fn split_hash(split: &TokenizedSplit) -> Result<String> {
    let mut hasher = Sha256::new();
    for (file, image) in split.files.iter().zip(split.split.images()) {
        let bytes = fs_err::metadata(&file.path).map_err(laps_data::DataError::from)?.len();
        hasher.update(format!("{} {} {bytes}\n", image.id, image.name));
    }
    for (input_ids, image) in split.input_ids.iter().zip(split.split.image_of()) {
        hasher.update(format!("{image} {input_ids:?}\n"));
    }
    Ok(laps_files::hex(&hasher.finalize()))
}

/// Message that the ranks exchange after each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepReport {
    /// Whether the run has to stop.
    pub(super) stop: bool,
    /// Time spent waiting for data in this epoch.
    pub(super) waited: Duration,
}

impl StepReport {
    /// Whether any rank has to stop, and the longest wait of a rank, in one operation.
    pub(super) fn gather(self, group: &Collective) -> Result<Self> {
        if !group.communicates() {
            return Ok(self);
        }
        let nanoseconds = i64::try_from(self.waited.as_nanos()).unwrap_or(i64::MAX);
        Ok(Self::of_ranks(&group.all_gather_numbers([self.stop.into(), nanoseconds])?))
    }

    fn of_ranks(ranks: &[[i64; 2]]) -> Self {
        let longest = ranks.iter().map(|&[_, nanoseconds]| nanoseconds.unsigned_abs()).max().unwrap_or(0);
        Self { stop: ranks.iter().any(|&[stop, _]| stop != 0), waited: Duration::from_nanos(longest) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use laps::share;

    use super::{RankRows, StepReport};

    #[test]
    fn report_of_a_step_has_the_slowest_rank_and_any_stop() {
        let found = |ranks: &[[i64; 2]]| StepReport::of_ranks(ranks);
        let expected = |stop, nanoseconds| StepReport { stop, waited: Duration::from_nanos(nanoseconds) };
        assert_eq!(found(&[[0, 5], [0, 1_000_000_007]]), expected(false, 1_000_000_007));
        assert_eq!(found(&[[0, 9], [1, 5], [0, 5]]), expected(true, 9));
    }

    #[test]
    fn rank_takes_its_rows_of_every_part() {
        let rows = RankRows { part: 5, rows: share(5, 1, 2) };
        assert_eq!(rows.positions(10).collect::<Vec<_>>(), [2, 3, 4, 7, 8, 9]);
        assert_eq!(rows.count(10), 6);
    }
}
