//! What the result says of single queries: how many have which rank, and those that fail hardest.

use std::collections::BTreeMap;

use laps_align::{
    Answer, CaptionImages, Evaluation, Failure, Fold, Protocol, Rank, Scores, TieRule, evaluate, failures,
};
use laps_data::Split;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Failed queries of each direction that are kept, and candidates of each.
const KEPT: [usize; 2] = [10, 5];

/// How many queries have which rank, counted from 1, under the rule for ties of the headline figures. Of several folds,
/// those of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankCounts {
    /// How they were counted.
    pub protocol: Protocol,
    /// Of images: the rank of the best caption.
    pub i2t: BTreeMap<u32, usize>,
    /// Of captions: the rank of the image.
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

/// The queries with the highest ranks among all images and captions of the split, the highest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueryFailures {
    /// Images.
    pub i2t: Vec<QueryFailure>,
    /// Captions.
    pub t2i: Vec<QueryFailure>,
}

/// A query whose right answer does not come first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryFailure {
    /// Row of the image, or column of the caption, from 0.
    pub query: usize,
    /// File of the image, or of the image that the caption is of, relative to the image folder.
    pub image: String,
    /// The caption; None where the image is the query.
    pub caption: Option<String>,
    /// Rank of the right answer, from 1.
    pub rank: u32,
    /// The right answer.
    pub right: QueryAnswer,
    /// The first candidates, the best one first.
    pub first: Vec<QueryAnswer>,
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// Row of the image, or column of the caption, from 0.
    pub index: usize,
    /// File of the image, or of the image that the caption is of, relative to the image folder.
    pub image: String,
    /// The caption; None where images are the candidates.
    pub caption: Option<String>,
    /// Similarity with the query.
    pub similarity: f32,
    /// Whether it belongs to the query.
    pub is_right: bool,
}

impl QueryFailures {
    /// Ranks of the whole matrix are taken from `evaluations` where one of them has them.
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
        let [images, texts] = failures(scores, captions, &fold.ranks, KEPT)?;
        let image = |index: usize| split.images()[index].name.clone();
        let of_caption = |index: usize| image(split.image_of()[index]);
        let caption = |index: usize| Some(split.captions()[index].clone());
        let captions = |answer: &Answer| QueryAnswer::new(answer, of_caption(answer.index), caption(answer.index));
        let images_found = |answer: &Answer| QueryAnswer::new(answer, image(answer.index), None);
        let failed =
            |failure: &Failure, image: String, caption, answer: &dyn Fn(&Answer) -> QueryAnswer| QueryFailure {
                query: failure.query,
                image,
                caption,
                rank: failure.rank,
                right: answer(&failure.right),
                first: failure.first.iter().map(answer).collect(),
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
    fn new(answer: &Answer, image: String, caption: Option<String>) -> Self {
        Self { index: answer.index, image, caption, similarity: answer.score, is_right: answer.is_right }
    }
}
