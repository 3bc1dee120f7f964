//! Statistics over queries: bootstrap confidence intervals of recalls, and a paired test of two results.
//!
//! Both work on the rank of each query, which results have since version 3.

mod bootstrap;
mod paired;

pub use bootstrap::{LEVEL, RecallIntervals, bootstrap};
pub use paired::{PERMUTATIONS, PairedComparison, RecallTest, compare, render};

use std::path::Path;

use crate::{
    Error, Result,
    reproduce::{QueryRanks, Reproduction},
};

/// Depths of the recalls.
const DEPTHS: [u32; 3] = [1, 5, 10];

/// The rank of each query by the evaluation `index` of a result.
///
/// # Errors
/// [`Error::InvalidResult`] if the result does not have them; `path` names it.
fn query_ranks<'a>(result: &'a Reproduction, index: usize, path: &Path) -> Result<&'a QueryRanks> {
    let protocol = result.evaluations.get(index).map(|evaluation| evaluation.protocol);
    let ranks = result.ranks.iter().find(|ranks| Some(ranks.protocol) == protocol);
    ranks.and_then(|ranks| ranks.queries.as_ref()).ok_or_else(|| Error::InvalidResult {
        path: path.to_owned(),
        expected: "the rank of each query, `ranks.queries`".to_owned(),
        found: format!("a result of schema {} without them", result.schema),
        hint: Some("evaluate again with this version of laps-zoo"),
    })
}

/// Sizes of the folds of each direction, in the order of the ranks.
fn fold_sizes(result: &Reproduction, index: usize) -> [Vec<usize>; 2] {
    let Some(evaluation) = result.evaluations.get(index) else { return [Vec::new(), Vec::new()] };
    match evaluation.folds.len() {
        0 | 1 => [vec![evaluation.images], vec![evaluation.captions]],
        _ => [
            evaluation.folds.iter().map(|fold| fold.images).collect(),
            evaluation.folds.iter().map(|fold| fold.captions).collect(),
        ],
    }
}

/// 1 for each of [`DEPTHS`] that the rank is within, otherwise 0.
fn hits(rank: u32) -> [usize; 3] {
    DEPTHS.map(|depth| usize::from(rank <= depth))
}

#[cfg(test)]
mod tests {
    use laps_align::{CaptionImages, Protocol, Scores, evaluate};

    use crate::{
        foreign::foreign_result,
        reproduce::{ForeignModel, QueryRanks, RankCounts, Reproduction, counts, recalls},
    };

    /// A foreign result with these ranks, which start at 1.
    pub(super) fn result(i2t: &[u32], t2i: &[u32]) -> Reproduction {
        let (images, captions) = (i2t.len(), t2i.len());
        let pairing = CaptionImages::uniform(images, captions / images).unwrap();
        let values = vec![0.0; images * captions];
        let scores = Scores::new(&values, images, captions).unwrap();
        let mut evaluation = evaluate(&scores, &pairing, Protocol::F30k).unwrap();
        let recall = |ranks: &[u32], depth: u32| {
            100.0 * ranks.iter().filter(|&&rank| rank <= depth).count() as f64 / ranks.len() as f64
        };
        for (side, ranks) in [(&mut evaluation.headline.i2t, i2t), (&mut evaluation.headline.t2i, t2i)] {
            (side.r1, side.r5, side.r10) = (recall(ranks, 1), recall(ranks, 5), recall(ranks, 10));
        }
        evaluation.headline.rsum = recalls(&evaluation.headline).iter().sum();
        let ranks = RankCounts {
            protocol: Protocol::F30k,
            i2t: counts(i2t),
            t2i: counts(t2i),
            queries: Some(QueryRanks { i2t: i2t.to_vec(), t2i: t2i.to_vec() }),
        };
        let model = ForeignModel { files: Vec::new(), head: None };
        let mut result = foreign_result("sims", "unknown", [images, captions], model);
        result.evaluations = vec![evaluation];
        result.ranks = vec![ranks];
        result
    }
}
