//! Recalls, the metrics of the published tables.

use serde::{Deserialize, Serialize};

use super::{Ranks, TieRule};

/// Metrics of one direction of retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// R@1: percentage of queries whose best match ranks first.
    pub r1: f64,
    /// R@5: percentage of queries with a match among the top 5.
    pub r5: f64,
    /// R@10: percentage of queries with a match among the top 10.
    pub r10: f64,
    /// Median rank, counted from 1, rounded down.
    pub median_rank: f64,
    /// Mean rank, counted from 1.
    pub mean_rank: f64,
}

/// Metrics of both directions of retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Directions {
    /// Image to text: captions for an image.
    pub i2t: Recall,
    /// Text to image: images for a caption.
    pub t2i: Recall,
    /// rSum: the sum of the six recalls.
    pub rsum: f64,
}

/// Number of queries whose rank depends on the tie rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ties {
    /// Images.
    pub i2t: usize,
    /// Captions.
    pub t2i: usize,
}

impl Recall {
    /// From the ranks of all queries, counted from 0. There must be at least one.
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
    /// Metrics under one tie rule. There must be at least one image and one caption.
    pub fn of(ranks: &Ranks, rule: TieRule) -> Self {
        let recall = |ranks: &[super::Rank]| Recall::of(ranks.iter().map(|rank| rank.under(rule)));
        Self::new(recall(&ranks.i2t), recall(&ranks.t2i))
    }

    /// Means of the metrics of several folds. There must be at least one.
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
