//! Bootstrap confidence intervals of recalls.

use std::{num::NonZeroUsize, path::Path};

use laps_align::Protocol;
use laps_model::random::SplitMix64;
use serde::{Deserialize, Serialize};

use super::{fold_sizes, hits, query_ranks};
use crate::{Result, reproduce::Reproduction};

/// Confidence level of the intervals.
pub const LEVEL: f64 = 0.95;

/// Confidence intervals of the recalls by one protocol: lower and upper bound, in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallIntervals {
    /// The protocol.
    pub protocol: Protocol,
    /// Number of bootstrap samples.
    pub samples: usize,
    /// Random seed.
    pub seed: u64,
    /// [`LEVEL`].
    pub level: f64,
    /// R@1, R@5, R@10 of image to text, then of text to image.
    pub recalls: [[f64; 2]; 6],
    /// The sum of the six recalls.
    pub rsum: [f64; 2],
}

/// Percentile bootstrap (Efron 1979) over the queries of each protocol. A sample draws as many queries as there are, with
/// replacement, in each direction and fold; its recalls are computed like those of the result.
///
/// # Errors
/// [`Error::InvalidResult`](crate::Error::InvalidResult) for a result of an older version, without the ranks of queries.
pub fn bootstrap(result: &Reproduction, samples: NonZeroUsize, seed: u64) -> Result<Vec<RecallIntervals>> {
    let mut all = Vec::new();
    for (index, evaluation) in result.evaluations.iter().enumerate() {
        let protocol = evaluation.protocol;
        let ranks = query_ranks(result, index, Path::new(&result.entry))?;
        let sizes = fold_sizes(result, index);
        let mut values = vec![Vec::new(); 7];
        let mut random = SplitMix64::named(seed, &format!("bootstrap {protocol}"));
        for _ in 0..samples.get() {
            let sides = [(&ranks.i2t, &sizes[0]), (&ranks.t2i, &sizes[1])];
            let recalls = sides.map(|(ranks, sizes)| resampled(ranks, sizes, &mut random)).concat();
            let rsum = recalls.iter().sum();
            values.iter_mut().zip(recalls.into_iter().chain([rsum])).for_each(|(values, value)| values.push(value));
        }
        let mut bounds = values.into_iter().map(interval);
        let mut next = || bounds.next().unwrap_or_default();
        let recalls = std::array::from_fn(|_| next());
        all.push(RecallIntervals { protocol, samples: samples.get(), seed, level: LEVEL, recalls, rsum: next() });
    }
    Ok(all)
}

/// Recalls of one sample: the mean over the folds.
fn resampled(ranks: &[u32], sizes: &[usize], random: &mut SplitMix64) -> [f64; 3] {
    let mut recalls = [0.0; 3];
    let mut rest = ranks;
    for &size in sizes {
        let (fold, others) = rest.split_at(size.min(rest.len()));
        rest = others;
        let mut counts = [0; 3];
        for _ in 0..fold.len() {
            let drawn = hits(fold[random.below(fold.len())]);
            counts.iter_mut().zip(drawn).for_each(|(count, hit)| *count += hit);
        }
        for (recall, count) in recalls.iter_mut().zip(counts) {
            *recall += 100.0 * count as f64 / fold.len().max(1) as f64 / sizes.len() as f64;
        }
    }
    recalls
}

/// The smallest interval from one sample value to another that leaves out at most half of `1 - LEVEL` at each end.
fn interval(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_unstable_by(f64::total_cmp);
    let outside = ((1.0 - LEVEL) / 2.0 * values.len() as f64) as usize;
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    [at(outside), at(values.len().saturating_sub(outside + 1))]
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::{bootstrap, interval};
    use crate::statistics::tests::result;

    #[test]
    fn interval_leaves_out_the_same_share_at_both_ends() {
        assert_eq!(interval((0..1000).rev().map(f64::from).collect()), [25.0, 974.0]);
        assert_eq!(interval(vec![3.0]), [3.0, 3.0]);
    }

    /// The recall of `n` independent queries has the standard deviation `sqrt(p (1 - p) / n)`; the interval of the normal
    /// approximation reaches 1.96 of it to each side.
    #[test]
    fn intervals_agree_with_the_normal_approximation() {
        let i2t: Vec<u32> = (0..400).map(|query| if query % 4 == 0 { 1 } else { 7 }).collect();
        let t2i: Vec<u32> = (0..2000).map(|query| if query % 5 == 0 { 40 } else { 1 }).collect();
        let samples = NonZeroUsize::new(2000).unwrap();
        let found = bootstrap(&result(&i2t, &t2i), samples, 7).unwrap().remove(0);
        assert_eq!(found, bootstrap(&result(&i2t, &t2i), samples, 7).unwrap().remove(0));
        assert_ne!(found.recalls, bootstrap(&result(&i2t, &t2i), samples, 8).unwrap().remove(0).recalls);
        for (index, share, queries) in [(0, 0.25, 400.0), (3, 0.8, 2000.0)] {
            let [low, high] = found.recalls[index];
            let reach = 100.0 * 1.96 * f64::sqrt(share * (1.0 - share) / queries);
            // The bounds of 2,000 samples scatter by 3 % of the reach, and recalls are multiples of 100 / queries.
            let tolerance = 0.1 * reach + 100.0 / queries;
            assert!((low - (100.0 * share - reach)).abs() < tolerance, "{index}: {low} to {high}, reach {reach}");
            assert!((high - (100.0 * share + reach)).abs() < tolerance, "{index}: {low} to {high}, reach {reach}");
        }
        assert_eq!(found.recalls[2], [100.0; 2]);
        assert!(found.rsum[0] < found.rsum[1]);
    }

    #[test]
    fn result_without_query_ranks_is_rejected() {
        let mut old = result(&[1, 2], &[1, 1, 3, 4]);
        old.ranks[0].queries = None;
        let error = bootstrap(&old, NonZeroUsize::MIN, 7).unwrap_err().to_string();
        assert!(error.contains("expected: the rank of each query"), "{error}");
    }
}
