//! Work that is split over the ranks of a distributed run.

use std::{fmt, ops::Range};

use laps_align::{CaptionImages, HardestQueries, PartialRanks, QueryScores, Rank, Ranks, Scores};

use crate::Result;

/// The ranks of a distributed run. All ranks call the same operations in the same order.
///
/// [`Libtorch::join`](crate::Libtorch::join) joins a group of several processes; [`SingleRank`] is the group of one.
pub trait RankGroup: fmt::Debug {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// The values of all ranks one after the other, of which rank `i` has `counts[i]`.
    ///
    /// # Errors
    /// A rank that failed or does not answer.
    fn all_gather_f32(&self, own: &[f32], counts: &[usize]) -> Result<Vec<f32>>;

    /// The values of all ranks one after the other, of which rank `i` has `counts[i]`.
    ///
    /// # Errors
    /// A rank that failed or does not answer.
    fn all_gather_u32(&self, own: &[u32], counts: &[usize]) -> Result<Vec<u32>>;

    /// One text of each rank, in the order of the ranks.
    ///
    /// # Errors
    /// A rank that failed or does not answer.
    fn all_gather_text(&self, text: &str) -> Result<Vec<String>>;

    /// The sums of the values of all ranks.
    ///
    /// # Errors
    /// A rank that failed or does not answer.
    fn sum_u32(&self, own: &[u32]) -> Result<Vec<u32>>;

    /// Fails on all ranks if `value` differs from that of rank 0 on any of them, and names the rank. `what` is in the
    /// singular: "seed".
    ///
    /// # Errors
    /// The rank that differs.
    fn require_equal(&self, what: &'static str, value: &str) -> Result<()>;

    /// Tells the other ranks why this one ends. Their next operation fails and names it.
    fn leave(&self, reason: &str);
}

/// The group of a process that is alone.
#[derive(Clone, Copy, Debug)]
pub struct SingleRank;

impl RankGroup for SingleRank {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_gather_f32(&self, own: &[f32], _: &[usize]) -> Result<Vec<f32>> {
        Ok(own.to_vec())
    }

    fn all_gather_u32(&self, own: &[u32], _: &[usize]) -> Result<Vec<u32>> {
        Ok(own.to_vec())
    }

    fn all_gather_text(&self, text: &str) -> Result<Vec<String>> {
        Ok(vec![text.to_owned()])
    }

    fn sum_u32(&self, own: &[u32]) -> Result<Vec<u32>> {
        Ok(own.to_vec())
    }

    fn require_equal(&self, _: &'static str, _: &str) -> Result<()> {
        Ok(())
    }

    fn leave(&self, _: &str) {}
}

/// The consecutive items of `count` that belong to a rank. The shares differ by one at most.
pub fn share(count: usize, rank: usize, world_size: usize) -> Range<usize> {
    rank * count / world_size..(rank + 1) * count / world_size
}

/// A similarity matrix of which each rank of a group holds the rows of consecutive images.
pub struct MatrixParts<'a> {
    /// The ranks.
    pub group: &'a dyn RankGroup,
    /// The rows of this rank; none if it has no images.
    pub own: Option<Scores<'a>>,
    /// Images of each rank.
    pub shares: &'a [Range<usize>],
    /// Image of each caption.
    pub captions: &'a CaptionImages,
}

impl MatrixParts<'_> {
    /// Ranks of `images` and their captions among each other, the same on all ranks.
    ///
    /// # Errors
    /// A NaN, and a rank that failed or does not answer.
    pub fn ranks(&self, images: Range<usize>) -> Result<Ranks> {
        let Self { group, own, shares, captions } = self;
        let first = shares[group.rank()].start;
        let share = |share: &Range<usize>| {
            let start = share.start.max(images.start);
            start..share.end.min(images.end).max(start)
        };
        let shares: Vec<Range<usize>> = shares.iter().map(share).collect();

        let own_scores = match own {
            Some(scores) => PartialRanks::own_scores(scores, captions, first, images.clone())?,
            None => Vec::new(),
        };
        let counts: Vec<usize> = shares.iter().map(|share| captions.of_images(share.clone()).len()).collect();
        let own_scores = group.all_gather_f32(&own_scores, &counts)?;

        let columns = own_scores.len();
        let part = match own {
            Some(scores) => Some(PartialRanks::new(scores, captions, first, images, own_scores)?),
            None => None,
        };
        let counts = part.as_ref().map_or_else(|| vec![0; 3 * columns], |part| part.counts().collect());
        let t2i = PartialRanks::t2i(&group.sum_u32(&counts)?);

        let i2t = part.map(|part| part.i2t).unwrap_or_default();
        let i2t = i2t.iter().flat_map(|rank| [rank.optimistic, rank.later_first, rank.pessimistic]);
        let counts: Vec<usize> = shares.iter().map(|share| 3 * share.len()).collect();
        let i2t = group.all_gather_u32(&i2t.collect::<Vec<_>>(), &counts)?;
        let (i2t, _) = i2t.as_chunks::<3>();
        let rank = |&[optimistic, later_first, pessimistic]: &[u32; 3]| Rank { optimistic, later_first, pessimistic };
        Ok(Ranks { i2t: i2t.iter().map(rank).collect(), t2i })
    }

    /// Scores of `queries` in all rows, the same on all ranks.
    ///
    /// # Errors
    /// A rank that failed or does not answer.
    pub fn query_scores(&self, queries: &HardestQueries) -> Result<QueryScores> {
        let Self { group, own, shares, captions } = self;
        let own = match own {
            Some(scores) => queries.scores(scores, shares[group.rank()].start)?,
            None => QueryScores::default(),
        };
        let images = queries.images();
        let rows =
            |share: &Range<usize>| images.iter().filter(|image| share.contains(image)).count() * captions.captions();
        let columns = |share: &Range<usize>| share.len() * queries.captions();
        Ok(QueryScores {
            rows: group.all_gather_f32(&own.rows, &shares.iter().map(rows).collect::<Vec<_>>())?,
            columns: group.all_gather_f32(&own.columns, &shares.iter().map(columns).collect::<Vec<_>>())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_cover_all_items_in_order() {
        for (count, world_size) in [(7, 3), (2, 3), (128, 4), (5, 5)] {
            let items: Vec<usize> = (0..world_size).flat_map(|rank| share(count, rank, world_size)).collect();
            assert_eq!(items, (0..count).collect::<Vec<_>>());
            let sizes = (0..world_size).map(|rank| share(count, rank, world_size).len());
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
    }
}
