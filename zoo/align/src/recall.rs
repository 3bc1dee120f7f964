//! Recalls: what the published tables hold.

use serde::{Deserialize, Serialize};

use super::{Ranks, TieRule};

/// One direction of retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Percentage of queries whose right answer comes first.
    pub r1: f64,
    /// Percentage of queries with a right answer among the first five.
    pub r5: f64,
    /// Percentage of queries with a right answer among the first ten.
    pub r10: f64,
    /// Median rank, counted from 1, halves rounded down.
    pub median_rank: f64,
    /// Mean rank, counted from 1.
    pub mean_rank: f64,
}

/// Both directions of retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Directions {
    /// Captions for an image.
    pub i2t: Recall,
    /// Images for a caption.
    pub t2i: Recall,
    /// Sum of the six recalls.
    pub rsum: f64,
}

/// Queries whose rank depends on the rule for ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ties {
    /// Of the images.
    pub i2t: usize,
    /// Of the captions.
    pub t2i: usize,
}

impl Recall {
    /// From the ranks of all queries, counted from 0; at least one.
    fn of(ranks: impl Iterator<Item = u32>) -> Self {
        let mut ranks: Vec<u32> = ranks.collect();
        ranks.sort_unstable();
        let count = ranks.len();
        let percent = |below: u32| 100.0 * ranks.partition_point(|&rank| rank < below) as f64 / count as f64;
        let median = (u64::from(ranks[(count - 1) / 2]) + u64::from(ranks[count / 2])) / 2;
        let sum: u64 = ranks.iter().map(|&rank| u64::from(rank)).sum();
        Self {
            r1: percent(1),
            r5: percent(5),
            r10: percent(10),
            median_rank: (median + 1) as f64,
            mean_rank: sum as f64 / count as f64 + 1.0,
        }
    }

    fn mean(recalls: &[Self]) -> Self {
        let mean = |field: fn(&Self) -> f64| recalls.iter().map(field).sum::<f64>() / recalls.len() as f64;
        Self {
            r1: mean(|recall| recall.r1),
            r5: mean(|recall| recall.r5),
            r10: mean(|recall| recall.r10),
            median_rank: mean(|recall| recall.median_rank),
            mean_rank: mean(|recall| recall.mean_rank),
        }
    }
}

impl Directions {
    /// Under one rule for ties.
    pub(super) fn of(ranks: &Ranks, rule: TieRule) -> Self {
        let recall = |ranks: &[super::Rank]| Recall::of(ranks.iter().map(|rank| rank.under(rule)));
        Self::new(recall(&ranks.i2t), recall(&ranks.t2i))
    }

    /// Of several folds, of which there is at least one, the mean of each figure.
    pub(super) fn mean(folds: &[Self]) -> Self {
        let mean = |side: fn(&Self) -> Recall| Recall::mean(&folds.iter().map(side).collect::<Vec<_>>());
        Self::new(mean(|fold| fold.i2t), mean(|fold| fold.t2i))
    }

    fn new(i2t: Recall, t2i: Recall) -> Self {
        let rsum = i2t.r1 + i2t.r5 + i2t.r10 + t2i.r1 + t2i.r5 + t2i.r10;
        Self { i2t, t2i, rsum }
    }
}

impl Ties {
    pub(super) fn of(ranks: &Ranks) -> Self {
        let count = |ranks: &[super::Rank]| ranks.iter().filter(|rank| rank.is_tied()).count();
        Self { i2t: count(&ranks.i2t), t2i: count(&ranks.t2i) }
    }
}
