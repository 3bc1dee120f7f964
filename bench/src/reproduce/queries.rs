//! Results of single queries: counts by rank, and the hardest failures.

use std::collections::BTreeMap;

use laps::MatrixParts;
use laps_align::{
    Candidate, CaptionImages, Evaluation, FailedQuery, Fold, HardestQueries, Protocol, Rank, Scores, TieRule, evaluate,
    failures,
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
    /// The rank of each query; `None` in results of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<QueryRanks>,
}

/// The rank of each query, starting at 1, with the tie rule of the headline recalls; one fold after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRanks {
    /// Images in the order of the matrix. In JSON one text of numbers separated by spaces.
    #[serde(with = "rank_text")]
    pub i2t: Vec<u32>,
    /// Captions in the order of the matrix, in each fold. In JSON one text of numbers separated by spaces.
    #[serde(with = "rank_text")]
    pub t2i: Vec<u32>,
}

/// Ranks as one line of text: an array of 30,000 numbers would be as many lines of a result file.
mod rank_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(ranks: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
        let ranks: Vec<String> = ranks.iter().map(u32::to_string).collect();
        serializer.serialize_str(&ranks.join(" "))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.split_ascii_whitespace().map(|rank| rank.parse().map_err(D::Error::custom)).collect()
    }
}

impl RankCounts {
    pub(crate) fn of(evaluation: &Evaluation) -> Self {
        let ranks = |side: fn(&Fold) -> &[Rank]| -> Vec<u32> {
            let ranks = evaluation.folds.iter().flat_map(side);
            ranks.map(|rank| rank.under(TieRule::HEADLINE) + 1).collect()
        };
        let queries = QueryRanks { i2t: ranks(|fold| &fold.ranks.i2t), t2i: ranks(|fold| &fold.ranks.t2i) };
        Self {
            protocol: evaluation.protocol,
            i2t: counts(&queries.i2t),
            t2i: counts(&queries.t2i),
            queries: Some(queries),
        }
    }
}

/// Number of queries by rank.
pub(crate) fn counts(ranks: &[u32]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    ranks.iter().for_each(|&rank| *counts.entry(rank).or_default() += 1);
    counts
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
    pub(crate) fn find(
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
        Ok(Self::new(failures(scores, captions, &fold.ranks, LISTED, TOP)?, split))
    }

    /// As [`find`](Self::find), in a matrix whose rows the ranks of a group share.
    pub(crate) fn of_parts(parts: &MatrixParts<'_>, split: &Split, evaluations: &[Evaluation]) -> Result<Self> {
        let counted;
        let ranks = match evaluations.iter().find(|evaluation| evaluation.folds.len() == 1) {
            Some(Evaluation { folds, .. }) => &folds[0].ranks,
            None => {
                counted = parts.ranks(0..parts.captions.images())?;
                &counted
            }
        };
        let queries = HardestQueries::of(ranks, LISTED);
        let scores = parts.query_scores(&queries)?;
        Ok(Self::new(queries.failures(parts.captions, &scores, TOP), split))
    }

    fn new([images, texts]: [Vec<FailedQuery>; 2], split: &Split) -> Self {
        let image = |index: usize| split.images()[index].name.clone();
        let of_caption = |index: usize| image(split.image_of()[index]);
        let caption = |index: usize| Some(split.captions()[index].clone());
        let captions = |answer: &Candidate| QueryAnswer::new(answer, of_caption(answer.index), caption(answer.index));
        let images_found = |answer: &Candidate| QueryAnswer::new(answer, image(answer.index), None);
        let failed =
            |failure: &FailedQuery, image: String, caption, answer: &dyn Fn(&Candidate) -> QueryAnswer| QueryFailure {
                query: failure.query,
                image,
                caption,
                rank: failure.rank,
                right: answer(&failure.best_match),
                first: failure.top.iter().map(answer).collect(),
            };
        Self {
            i2t: images.iter().map(|failure| failed(failure, image(failure.query), None, &captions)).collect(),
            t2i: texts
                .iter()
                .map(|failure| failed(failure, of_caption(failure.query), caption(failure.query), &images_found))
                .collect(),
        }
    }
}

impl QueryAnswer {
    fn new(answer: &Candidate, image: String, caption: Option<String>) -> Self {
        Self { index: answer.index, image, caption, similarity: answer.score, is_right: answer.is_match }
    }
}
