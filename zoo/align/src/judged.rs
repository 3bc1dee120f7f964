//! Metrics with several right answers per query, from judgements such as ECCV Caption, CxC and plausible matches.

use std::{cmp::Ordering, collections::HashMap};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{RetrievalError, Scores, TieRule};

/// Right captions of an image whose ranks are counted one at a time. For more of them a search among all is faster.
const MAX_COUNTED: usize = 32;

/// Counters of the ranks of captions that are in memory at the same time: 256 MiB. Plausible matches have millions of pairs.
const MAX_COUNTERS: usize = 1 << 26;

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
/// row twice.
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
/// each row twice.
///
/// # Errors
/// [`RetrievalError::Size`] if a query or a positive is outside the matrix, or a direction has no query; a NaN.
pub fn answer_ranks(scores: &Scores, judgements: &Judgements) -> Result<AnswerRanks, RetrievalError> {
    let images = scores.images();
    check(&judgements.i2t, images, scores.captions(), "images")?;
    check(&judgements.t2i, scores.captions(), images, "captions")?;
    let of_image: HashMap<usize, usize> =
        judgements.i2t.iter().enumerate().map(|(index, judged)| (judged.query, index)).collect();
    let captions = CaptionGoals::new(scores, &judgements.t2i)?;

    // Each block has counters of its own.
    let blocks = (MAX_COUNTERS / captions.goals.len().max(1)).clamp(1, rayon::current_num_threads());
    let rows_each = images.div_ceil(blocks);
    let starts: Vec<usize> = (0..images).step_by(rows_each).collect();
    let blocks: Vec<Result<_, RetrievalError>> = starts
        .into_par_iter()
        .map(|start| {
            let (mut buffer, mut ranked) = (Vec::new(), Vec::new());
            let mut before = vec![0; captions.goals.len()];
            for image in start..(start + rows_each).min(images) {
                let row = scores.row(image, &mut buffer)?;
                if let Some(column) = row.iter().position(|value| value.is_nan()) {
                    return Err(RetrievalError::NotANumber { row: image, column });
                }
                if let Some(&index) = of_image.get(&image) {
                    ranked.push((index, ranks_in_row(row, &judgements.i2t[index].positives)));
                }
                captions.count(image as u32, row, &mut before);
            }
            Ok((ranked, before))
        })
        .collect();

    let mut image_ranks = vec![Vec::new(); judgements.i2t.len()];
    let mut before = vec![0; captions.goals.len()];
    for block in blocks {
        let (ranked, counts) = block?;
        ranked.into_iter().for_each(|(index, ranks)| image_ranks[index] = ranks);
        before.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    Ok(AnswerRanks { i2t: image_ranks, t2i: captions.ranks(&before) })
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

/// Number of candidates of `row` before each of `positives`.
fn ranks_in_row(row: &[f32], positives: &[usize]) -> Vec<u32> {
    if positives.len() <= MAX_COUNTED {
        return positives.iter().map(|&positive| rank(row, positive)).collect();
    }
    let mut goals = Goal::of(positives);
    goals.iter_mut().for_each(|goal| goal.set_score(row[goal.candidate as usize]));
    goals.sort_unstable_by(Goal::best_first);
    let mut before = vec![0; goals.len()];
    for (candidate, &score) in row.iter().enumerate() {
        Goal::count(&goals, score, candidate as u32, &mut before);
    }
    Goal::ranks(&goals, &before)
}

/// A right candidate of a query.
#[derive(Clone, Copy)]
struct Goal {
    score: f32,
    /// Its row or column.
    candidate: u32,
    /// Its index among the positives of the query.
    positive: u32,
}

impl Goal {
    /// The goals of a query, without their scores.
    fn of(positives: &[usize]) -> Vec<Self> {
        let goal = |(positive, &candidate): (usize, &usize)| Self {
            score: 0.0,
            candidate: candidate as u32,
            positive: positive as u32,
        };
        positives.iter().enumerate().map(goal).collect()
    }

    fn set_score(&mut self, score: f32) {
        // Turns -0 into 0, which `total_cmp` tells apart.
        self.score = score + 0.0;
    }

    /// The order of [`TieRule::HEADLINE`].
    fn best_first(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(other.candidate.cmp(&self.candidate))
    }

    /// Adds 1 at the first of the sorted `goals` that `candidate` comes before.
    fn count(goals: &[Self], score: f32, candidate: u32, before: &mut [u32]) {
        let is_before = |goal: &Self| (goal.score > score) | ((goal.score == score) & (goal.candidate >= candidate));
        if let Some(count) = before.get_mut(goals.partition_point(is_before)) {
            *count += 1;
        }
    }

    /// The ranks of the sorted `goals`, in the order of the positives, from what [`count`](Self::count) counted.
    fn ranks(goals: &[Self], before: &[u32]) -> Vec<u32> {
        let (mut ranks, mut rank) = (vec![0; goals.len()], 0_u32);
        for (goal, &count) in goals.iter().zip(before) {
            rank += count;
            ranks[goal.positive as usize] = rank;
        }
        ranks
    }
}

/// The right images of the judged captions, in the order of the captions.
struct CaptionGoals {
    /// Columns of the captions.
    columns: Vec<u32>,
    /// Index of the first goal of each caption, and the number of all goals.
    starts: Vec<usize>,
    /// The best of a caption first.
    goals: Vec<Goal>,
}

impl CaptionGoals {
    fn new(scores: &Scores, judged: &[JudgedQuery]) -> Result<Self, RetrievalError> {
        let (mut starts, mut goals) = (vec![0], Vec::new());
        for judged in judged {
            let mut own = Goal::of(&judged.positives);
            own.sort_unstable_by_key(|goal| goal.candidate);
            goals.append(&mut own);
            starts.push(goals.len());
        }
        let columns = judged.iter().map(|judged| judged.query as u32).collect();
        let mut found = Self { columns, starts, goals };
        found.read_scores(scores)?;
        for range in found.starts.windows(2) {
            found.goals[range[0]..range[1]].sort_unstable_by(Goal::best_first);
        }
        Ok(found)
    }

    /// Reads the scores of the goals, which are sorted by their row.
    fn read_scores(&mut self, scores: &Scores) -> Result<(), RetrievalError> {
        let mut next = self.starts.clone();
        let mut buffer = Vec::new();
        for image in 0..scores.images() {
            let row = scores.row(image, &mut buffer)?;
            for ((next, &end), &column) in next.iter_mut().zip(&self.starts[1..]).zip(&self.columns) {
                if *next < end && self.goals[*next].candidate as usize == image {
                    self.goals[*next].set_score(row[column as usize]);
                    *next += 1;
                }
            }
        }
        Ok(())
    }

    /// Counts, for each caption, the first goal that `image` comes before.
    fn count(&self, image: u32, row: &[f32], before: &mut [u32]) {
        for (range, &column) in self.starts.windows(2).zip(&self.columns) {
            let (start, end) = (range[0], range[1]);
            Goal::count(&self.goals[start..end], row[column as usize], image, &mut before[start..end]);
        }
    }

    /// The ranks of the goals of each caption.
    fn ranks(&self, before: &[u32]) -> Vec<Vec<u32>> {
        let of_caption = |range: &[usize]| Goal::ranks(&self.goals[range[0]..range[1]], &before[range[0]..range[1]]);
        self.starts.windows(2).map(of_caption).collect()
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
    use laps_model::random::SplitMix64;

    use super::{JudgedQuery, Judgements, MAX_COUNTED, answer_ranks, judged_metrics};
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

    /// Numbers of right answers below and above [`MAX_COUNTED`], in any order, on a matrix with ties and both zeros.
    #[test]
    fn ranks_of_many_right_answers_equal_those_of_sorting() {
        const IMAGES: usize = 60;
        const CAPTIONS: usize = 90;
        let mut random = SplitMix64::named(7, "judged");
        let levels = [-0.0, 0.0, 0.25, 0.5, -1.0];
        let values: Vec<f32> = (0..IMAGES * CAPTIONS).map(|_| levels[random.below(levels.len())]).collect();
        let mut draw = |query: usize, candidates: usize| {
            let share = 1 + random.below(4);
            let mut positives: Vec<usize> = (0..candidates).filter(|_| random.below(4) < share).collect();
            positives.push(candidates);
            positives.reverse();
            judged(query, &positives, 0)
        };
        let i2t: Vec<_> = (0..IMAGES).step_by(2).map(|image| draw(image, CAPTIONS - 1)).collect();
        let t2i: Vec<_> = (0..CAPTIONS).rev().map(|caption| draw(caption, IMAGES - 1)).collect();
        for judged in [&i2t, &t2i] {
            assert!(judged.iter().any(|judged| judged.positives.len() > MAX_COUNTED));
            assert!(judged.iter().any(|judged| judged.positives.len() <= MAX_COUNTED));
        }
        let sorted = |judged: &JudgedQuery, candidates: usize, score: &dyn Fn(usize) -> f32| -> Vec<u32> {
            let mut order: Vec<usize> = (0..candidates).collect();
            order.sort_by(|&a, &b| score(b).partial_cmp(&score(a)).unwrap().then(b.cmp(&a)));
            let place = |positive: &usize| order.iter().position(|candidate| candidate == positive).unwrap() as u32;
            judged.positives.iter().map(place).collect()
        };
        let judgements = Judgements { i2t, t2i };
        let found = answer_ranks(&Scores::new(&values, IMAGES, CAPTIONS).unwrap(), &judgements).unwrap();
        for (judged, ranks) in judgements.i2t.iter().zip(found.i2t) {
            let score = |caption: usize| values[judged.query * CAPTIONS + caption];
            assert_eq!(ranks, sorted(judged, CAPTIONS, &score), "image {}", judged.query);
        }
        for (judged, ranks) in judgements.t2i.iter().zip(found.t2i) {
            let score = |image: usize| values[image * CAPTIONS + judged.query];
            assert_eq!(ranks, sorted(judged, IMAGES, &score), "caption {}", judged.query);
        }
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
