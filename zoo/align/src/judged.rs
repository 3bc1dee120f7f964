//! Metrics with several right answers per query, from human judgements such as ECCV Caption and CxC.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{RetrievalError, Scores, TieRule};

/// A query and the candidates that are judged to be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JudgedQuery {
    /// Row of an image, or column of a caption.
    pub query: usize,
    /// Columns or rows of the right candidates, without duplicates.
    pub positives: Vec<usize>,
    /// Right candidates that are not in the matrix. They count in R but are never found.
    pub missing: usize,
}

/// Judged queries in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgements {
    /// Images, with the captions that are right.
    pub i2t: Vec<JudgedQuery>,
    /// Captions, with the images that are right.
    pub t2i: Vec<JudgedQuery>,
}

/// Metrics of one direction, in percent: means over the judged queries. R is the number of right candidates of a query.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedMetrics {
    /// Number of judged queries.
    pub queries: usize,
    /// Mean average precision at R: the mean of `(1 / R) * sum over r <= R of rel(r) * precision(r)`.
    pub map_at_r: f64,
    /// R-precision: the share of right candidates among the first R.
    pub r_precision: f64,
    /// Queries with a right candidate in first place.
    pub r1: f64,
    /// Queries with a right candidate among the first five.
    pub r5: f64,
    /// Queries with a right candidate among the first ten.
    pub r10: f64,
}

/// Metrics of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedDirections {
    /// Captions for an image.
    pub i2t: JudgedMetrics,
    /// Images for a caption.
    pub t2i: JudgedMetrics,
}

/// Ranks of the right candidates of each query, from 0, in the order of the judgements and of their positives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRanks {
    /// Ranks of captions, one list per judged image.
    pub i2t: Vec<Vec<u32>>,
    /// Ranks of images, one list per judged caption.
    pub t2i: Vec<Vec<u32>>,
}

/// Computes the metrics of `judgements` on the whole matrix, with ties in the order of [`TieRule::HEADLINE`]. Reads each
/// row once.
///
/// # Errors
/// As [`answer_ranks`].
pub fn judged_metrics(scores: &Scores, judgements: &Judgements) -> Result<JudgedDirections, RetrievalError> {
    let ranks = answer_ranks(scores, judgements)?;
    Ok(JudgedDirections {
        i2t: JudgedMetrics::of(&judgements.i2t, ranks.i2t),
        t2i: JudgedMetrics::of(&judgements.t2i, ranks.t2i),
    })
}

/// Computes the rank of every right candidate on the whole matrix, with ties in the order of [`TieRule::HEADLINE`]. Reads
/// each row once.
///
/// # Errors
/// [`RetrievalError::Size`] if a query or a positive is outside the matrix, or a direction has no query; a NaN.
pub fn answer_ranks(scores: &Scores, judgements: &Judgements) -> Result<AnswerRanks, RetrievalError> {
    let (images, captions) = (scores.images(), scores.captions());
    check(&judgements.i2t, images, captions, "images")?;
    check(&judgements.t2i, captions, images, "captions")?;
    let of_image: HashMap<usize, usize> =
        judgements.i2t.iter().enumerate().map(|(index, judged)| (judged.query, index)).collect();
    let pairs = CaptionPairs::new(scores, &judgements.t2i)?;

    let rows_each = images.div_ceil(rayon::current_num_threads()).max(1);
    let starts: Vec<usize> = (0..images).step_by(rows_each).collect();
    let blocks: Vec<Result<_, RetrievalError>> = starts
        .into_par_iter()
        .map(|start| {
            let (mut buffer, mut ranked) = (Vec::new(), Vec::new());
            let mut better = vec![0; pairs.columns.len()];
            for image in start..(start + rows_each).min(images) {
                let row = scores.row(image, &mut buffer)?;
                if let Some(column) = row.iter().position(|value| value.is_nan()) {
                    return Err(RetrievalError::NotANumber { row: image, column });
                }
                if let Some(&index) = of_image.get(&image) {
                    let positives = &judgements.i2t[index].positives;
                    ranked.push((index, positives.iter().map(|&positive| rank(row, positive)).collect::<Vec<_>>()));
                }
                pairs.count(image, row, &mut better);
            }
            Ok((ranked, better))
        })
        .collect();

    let mut image_ranks = vec![Vec::new(); judgements.i2t.len()];
    let mut better = vec![0; pairs.columns.len()];
    for block in blocks {
        let (ranked, counts) = block?;
        ranked.into_iter().for_each(|(index, ranks)| image_ranks[index] = ranks);
        better.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let mut rest = better.as_slice();
    let caption_ranks = judgements.t2i.iter().map(|judged| {
        let (own, others) = rest.split_at(judged.positives.len());
        rest = others;
        own.to_vec()
    });
    Ok(AnswerRanks { i2t: image_ranks, t2i: caption_ranks.collect() })
}

fn check(judged: &[JudgedQuery], queries: usize, candidates: usize, unit: &str) -> Result<(), RetrievalError> {
    let is_inside =
        |judged: &JudgedQuery| judged.query < queries && judged.positives.iter().all(|&positive| positive < candidates);
    let has_answers = |judged: &JudgedQuery| !judged.positives.is_empty() || judged.missing > 0;
    if !judged.is_empty() && judged.iter().all(|judged| is_inside(judged) && has_answers(judged)) {
        return Ok(());
    }
    Err(RetrievalError::Size {
        expected: format!("judged {unit} below {queries}, with right candidates below {candidates}"),
        found: match judged.iter().find(|judged| !is_inside(judged) || !has_answers(judged)) {
            Some(JudgedQuery { query, positives, .. }) => format!("query {query} with {positives:?}"),
            None => "no judged query".to_owned(),
        },
    })
}

/// Number of candidates of `row` before `candidate`.
fn rank(row: &[f32], candidate: usize) -> u32 {
    const { assert!(matches!(TieRule::HEADLINE, TieRule::LaterFirst)) };
    let goal = row[candidate];
    let count = |values: &[f32], is_before: fn(f32, f32) -> bool| {
        values.iter().map(|&value| u32::from(is_before(value, goal))).sum::<u32>()
    };
    count(&row[..candidate], |value, goal| value > goal) + count(&row[candidate..], |value, goal| value >= goal) - 1
}

/// The pairs of a judged caption and a right image, in the order of the queries.
struct CaptionPairs {
    columns: Vec<u32>,
    rows: Vec<u32>,
    goals: Vec<f32>,
}

impl CaptionPairs {
    fn new(scores: &Scores, judged: &[JudgedQuery]) -> Result<Self, RetrievalError> {
        let pairs = || judged.iter().flat_map(|judged| judged.positives.iter().map(|&image| (image, judged.query)));
        Ok(Self {
            columns: pairs().map(|(_, caption)| caption as u32).collect(),
            rows: pairs().map(|(image, _)| image as u32).collect(),
            goals: pairs().map(|(image, caption)| scores.get(image, caption)).collect::<Result<_, _>>()?,
        })
    }

    /// Adds 1 for each pair whose image comes after `image`.
    fn count(&self, image: usize, row: &[f32], better: &mut [u32]) {
        let pairs = self.columns.iter().zip(&self.rows).zip(&self.goals).zip(better);
        for (((&column, &own), &goal), better) in pairs {
            let value = row[column as usize];
            *better += u32::from(value > goal) + u32::from((value == goal) & (image as u32 > own));
        }
    }
}

impl JudgedMetrics {
    /// From the ranks, counted from 0, of the right candidates of each query.
    fn of(judged: &[JudgedQuery], ranks: Vec<Vec<u32>>) -> Self {
        let mut sums = [0.0; 5];
        for (judged, mut ranks) in judged.iter().zip(ranks) {
            ranks.sort_unstable();
            let right = ranks.len() + judged.missing;
            let within = |depth: usize| ranks.partition_point(|&rank| (rank as usize) < depth);
            let hits = ranks[..within(right)].iter().enumerate();
            let precisions: f64 = hits.map(|(hit, &rank)| (hit + 1) as f64 / (f64::from(rank) + 1.0)).sum();
            let found = |depth: usize| f64::from(u8::from(within(depth) > 0));
            let values =
                [precisions / right as f64, within(right) as f64 / right as f64, found(1), found(5), found(10)];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        let [map_at_r, r_precision, r1, r5, r10] = sums.map(|sum| 100.0 * sum / judged.len() as f64);
        Self { queries: judged.len(), map_at_r, r_precision, r1, r5, r10 }
    }
}

#[cfg(test)]
mod tests {
    use super::{JudgedQuery, Judgements, judged_metrics};
    use crate::Scores;

    fn judged(query: usize, positives: &[usize], missing: usize) -> JudgedQuery {
        JudgedQuery { query, positives: positives.to_vec(), missing }
    }

    /// Image 0 ranks the captions 1, 3, 0, 2 and has the right captions 1 and 0 of three, one of which is missing:
    /// precisions 1 and 2/3 within the first three.
    #[test]
    fn metrics_equal_those_counted_by_hand() {
        let values = [
            0.2, 0.9, 0.1, 0.5, //
            0.2, 0.1, 0.1, 0.7, //
            0.3, 0.0, 0.1, 0.6,
        ];
        let scores = Scores::new(&values, 3, 4).unwrap();
        // Image 1 ranks caption 2 before caption 1, which has the same score, and both after 3 and 0.
        let i2t = vec![judged(0, &[1, 0], 1), judged(1, &[2], 0)];
        // Caption 0 ranks the images 2, 1, 0 by score and the later of equal scores first; caption 2 ranks 2, 1, 0.
        let t2i = vec![judged(0, &[0], 0), judged(2, &[1, 2], 0)];
        let found = judged_metrics(&scores, &Judgements { i2t, t2i }).unwrap();
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        near(found.i2t.map_at_r, 100.0 * (1.0 + 2.0 / 3.0) / 3.0 / 2.0);
        near(found.i2t.r_precision, 100.0 * (2.0 / 3.0) / 2.0);
        near(found.i2t.r1, 50.0);
        near(found.i2t.r5, 100.0);
        near(found.t2i.map_at_r, 50.0);
        near(found.t2i.r_precision, 50.0);
        near(found.t2i.r1, 50.0);
        assert_eq!((found.i2t.queries, found.t2i.queries), (2, 2));
    }

    #[test]
    fn judgements_outside_the_matrix_are_refused() {
        let scores = Scores::new(&[0.0; 12], 3, 4).unwrap();
        let good = || vec![judged(0, &[0], 0)];
        for wrong in [vec![], vec![judged(3, &[0], 0)], vec![judged(0, &[4], 0)], vec![judged(0, &[], 0)]] {
            assert!(judged_metrics(&scores, &Judgements { i2t: wrong, t2i: good() }).is_err());
        }
        assert!(judged_metrics(&scores, &Judgements { i2t: good(), t2i: vec![judged(0, &[3], 0)] }).is_err());
    }
}
