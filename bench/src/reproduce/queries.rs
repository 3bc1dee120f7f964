//! Results of single queries: counts by rank, and the hardest failures.

use std::collections::BTreeMap;

use laps_align::{
    Candidate, CaptionImages, Evaluation, Failure, Fold, Protocol, Rank, Scores, TieRule, evaluate, failures,
};
use laps_data::Split;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Number of failed queries per direction in a result.
const LISTED: usize = 10;
/// Number of candidates of each failed query.
const TOP: usize = 5;

/// Number of queries by rank, starting at 1, with the tie rule of the headline recalls; summed over folds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankCounts {
    /// The protocol.
    pub protocol: Protocol,
    /// Images, by the rank of their best caption.
    pub i2t: BTreeMap<u32, usize>,
    /// Captions, by the rank of their image.
    pub t2i: BTreeMap<u32, usize>,
}

impl RankCounts {
    pub(super) fn of(evaluation: &Evaluation) -> Self {
        let count = |side: fn(&Fold) -> &[Rank]| {
            let mut counts = BTreeMap::new();
            for rank in evaluation.folds.iter().flat_map(side) {
                *counts.entry(rank.under(TieRule::HEADLINE) + 1).or_default() += 1;
            }
            counts
        };
        Self { protocol: evaluation.protocol, i2t: count(|fold| &fold.ranks.i2t), t2i: count(|fold| &fold.ranks.t2i) }
    }
}

/// The queries with the worst ranks among all images and captions of the split, worst first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueryFailures {
    /// Images as queries.
    pub i2t: Vec<QueryFailure>,
    /// Captions as queries.
    pub t2i: Vec<QueryFailure>,
}

/// A query whose correct answer does not rank first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryFailure {
    /// Row of the image, or column of the caption, starting at 0.
    pub query: usize,
    /// Image file, or the image file of the caption, relative to the image folder.
    pub image: String,
    /// The caption; `None` if the query is an image.
    pub caption: Option<String>,
    /// Rank of the correct answer, starting at 1.
    pub rank: u32,
    /// The correct answer.
    pub right: QueryAnswer,
    /// The top candidates, best first.
    pub first: Vec<QueryAnswer>,
}

/// A candidate answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// Row of the image, or column of the caption, starting at 0.
    pub index: usize,
    /// Image file, or the image file of the caption, relative to the image folder.
    pub image: String,
    /// The caption; `None` if the candidate is an image.
    pub caption: Option<String>,
    /// Similarity with the query.
    pub similarity: f32,
    /// Whether it is a correct answer.
    pub is_right: bool,
}

impl QueryFailures {
    /// Finds the failures. Ranks of the whole matrix are taken from `evaluations` if a protocol without folds is among
    /// them.
    pub(super) fn find(
        scores: &Scores,
        captions: &CaptionImages,
        split: &Split,
        evaluations: &[Evaluation],
    ) -> Result<Self> {
        let counted;
        let whole = match evaluations.iter().find(|evaluation| evaluation.folds.len() == 1) {
            Some(evaluation) => evaluation,
            None => {
                counted = evaluate(scores, captions, Protocol::Coco5k)?;
                &counted
            }
        };
        let Some(fold) = whole.folds.first() else { return Ok(Self::default()) };
        let [images, texts] = failures(scores, captions, &fold.ranks, LISTED, TOP)?;
        let image = |index: usize| split.images()[index].name.clone();
        let of_caption = |index: usize| image(split.image_of()[index]);
        let caption = |index: usize| Some(split.captions()[index].clone());
        let captions = |answer: &Candidate| QueryAnswer::new(answer, of_caption(answer.index), caption(answer.index));
        let images_found = |answer: &Candidate| QueryAnswer::new(answer, image(answer.index), None);
        let failed =
            |failure: &Failure, image: String, caption, answer: &dyn Fn(&Candidate) -> QueryAnswer| QueryFailure {
                query: failure.query,
                image,
                caption,
                rank: failure.rank,
                right: answer(&failure.best_match),
                first: failure.top.iter().map(answer).collect(),
            };
        Ok(Self {
            i2t: images.iter().map(|failure| failed(failure, image(failure.query), None, &captions)).collect(),
            t2i: texts
                .iter()
                .map(|failure| failed(failure, of_caption(failure.query), caption(failure.query), &images_found))
                .collect(),
        })
    }
}

impl QueryAnswer {
    fn new(answer: &Candidate, image: String, caption: Option<String>) -> Self {
        Self { index: answer.index, image, caption, similarity: answer.score, is_right: answer.is_match }
    }
}
