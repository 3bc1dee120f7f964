//! The queries with the lowest-ranked matches, and the candidates that rank above them.

use std::cmp::{Ordering, Reverse};

use super::{CaptionImages, Rank, Ranks, RetrievalError, Scores, TieRule};

/// A candidate of a query and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Row of an image, or column of a caption.
    pub index: usize,
    /// Similarity to the query.
    pub score: f32,
    /// Whether it is a match of the query.
    pub is_match: bool,
}

/// A query whose best match does not rank first.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedQuery {
    /// Row of an image, or column of a caption.
    pub query: usize,
    /// Rank of the best match, counted from 1.
    pub rank: u32,
    /// The best match.
    pub best_match: Candidate,
    /// The top candidates, in order of rank.
    pub top: Vec<Candidate>,
}

/// The images and the captions with the highest ranks above 1: at most `count` of each, each with its top `depth`
/// candidates. `ranks` are those of the whole matrix. Queries of equal rank are in ascending order, candidates of equal
/// score in the order of [`TieRule::HEADLINE`].
///
/// Reads the rows of the returned images, and every row once if a caption is returned.
///
/// # Errors
/// [`RetrievalError::Size`] if the sizes differ, and a matrix that cannot be read.
pub fn failures(
    scores: &Scores,
    captions: &CaptionImages,
    ranks: &Ranks,
    count: usize,
    depth: usize,
) -> Result<[Vec<FailedQuery>; 2], RetrievalError> {
    let whole = [captions.images(), captions.captions()];
    if [scores.images(), scores.captions()] != whole || [ranks.i2t.len(), ranks.t2i.len()] != whole {
        return Err(RetrievalError::Size {
            expected: format!("{} images x {} captions, and their ranks", whole[0], whole[1]),
            found: format!(
                "{} x {}, ranks {} x {}",
                scores.images(),
                scores.captions(),
                ranks.i2t.len(),
                ranks.t2i.len()
            ),
        });
    }
    let queries = HardestQueries::of(ranks, count);
    let scores = queries.scores(scores, 0)?;
    Ok(queries.failures(captions, &scores, depth))
}

/// The queries of [`failures`], for processes that hold one part of the rows each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardestQueries {
    /// Images with their ranks.
    images: Vec<(usize, u32)>,
    /// Captions with their ranks.
    captions: Vec<(usize, u32)>,
}

/// Scores of the hardest queries in consecutive rows of a matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryScores {
    /// The rows of the images among the queries, in ascending order, one after the other.
    pub rows: Vec<f32>,
    /// For each row of the matrix the scores of the captions among the queries.
    pub columns: Vec<f32>,
}

impl HardestQueries {
    /// The images and the captions with the highest ranks above 1, at most `count` of each.
    pub fn of(ranks: &Ranks, count: usize) -> Self {
        let hardest = |ranks: &[Rank]| hardest(ranks.iter().map(|rank| rank.under(TieRule::HEADLINE)), count);
        Self { images: hardest(&ranks.i2t), captions: hardest(&ranks.t2i) }
    }

    /// The images, ascending.
    pub fn images(&self) -> Vec<usize> {
        let mut images: Vec<usize> = self.images.iter().map(|&(image, _)| image).collect();
        images.sort_unstable();
        images
    }

    /// Number of captions.
    pub fn captions(&self) -> usize {
        self.captions.len()
    }

    /// Reads the scores of the queries from the rows of the images from `first_image` on.
    ///
    /// # Errors
    /// A matrix that cannot be read.
    pub fn scores(&self, scores: &Scores, first_image: usize) -> Result<QueryScores, RetrievalError> {
        let mut buffer = Vec::new();
        let mut found = QueryScores::default();
        let rows = first_image..first_image + scores.images();
        for image in self.images().into_iter().filter(|image| rows.contains(image)) {
            found.rows.extend_from_slice(scores.row(image - first_image, &mut buffer)?);
        }
        if !self.captions.is_empty() {
            for row in 0..scores.images() {
                let row = scores.row(row, &mut buffer)?;
                found.columns.extend(self.captions.iter().map(|&(caption, _)| row[caption]));
            }
        }
        Ok(found)
    }

    /// The failures, images first, each with its top `depth` candidates. `scores` are those of the whole matrix.
    pub fn failures(&self, captions: &CaptionImages, scores: &QueryScores, depth: usize) -> [Vec<FailedQuery>; 2] {
        let order = self.images();
        let images = self.images.iter().filter_map(|&(query, rank)| {
            let position = order.iter().position(|&image| image == query)?;
            let row = scores.rows.get(position * captions.captions()..(position + 1) * captions.captions())?;
            Some(FailedQuery::new(query, rank, row, depth, |caption| captions.image(caption as u32) as usize == query))
        });
        let images = images.collect();
        let width = self.captions.len().max(1);
        let texts = self.captions.iter().enumerate().map(|(position, &(query, rank))| {
            let column: Vec<f32> = scores.columns.iter().skip(position).step_by(width).copied().collect();
            let own = captions.image(query as u32) as usize;
            FailedQuery::new(query, rank, &column, depth, |image| image == own)
        });
        [images, texts.collect()]
    }
}

/// The `count` highest ranks above 1, counted from 1, with their queries.
fn hardest(ranks: impl Iterator<Item = u32>, count: usize) -> Vec<(usize, u32)> {
    let mut failed: Vec<(usize, u32)> = ranks.map(|rank| rank + 1).enumerate().filter(|&(_, rank)| rank > 1).collect();
    failed.sort_by_key(|&(query, rank)| (Reverse(rank), query));
    failed.truncate(count);
    failed
}

impl FailedQuery {
    fn new(query: usize, rank: u32, scores: &[f32], depth: usize, is_match: impl Fn(usize) -> bool) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Ranks were computed, so there is no NaN.
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal).then(b.cmp(&a)));
        let candidate = |&index: &usize| Candidate { index, score: scores[index], is_match: is_match(index) };
        // The first match of the order is the one that defines the rank.
        let best = order.iter().find(|&&index| is_match(index)).unwrap_or(&query);
        Self { query, rank, best_match: candidate(best), top: order.iter().take(depth).map(candidate).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::evaluate, *};
    use crate::Protocol;

    /// Three images with two captions each. Image 0 ranks its own captions fourth and later; caption 4 ranks its image last,
    /// behind two tied images.
    const SCORES: [f32; 18] = [
        0.4, 0.1, 0.9, 0.8, 0.7, 0.0, //
        0.2, 0.0, 0.9, 0.6, 0.7, 0.3, //
        0.1, 0.3, 0.0, 0.2, 0.5, 0.9, //
    ];

    fn failures_of(count: usize, depth: usize) -> [Vec<FailedQuery>; 2] {
        let captions = CaptionImages::uniform(3, 2).unwrap();
        let scores = Scores::new(&SCORES, 3, 6).unwrap();
        let evaluation = evaluate(&scores, &captions, Protocol::F30k).unwrap();
        failures(&scores, &captions, &evaluation.folds[0].ranks, count, depth).unwrap()
    }

    #[test]
    fn highest_ranks_come_first_with_their_top_candidates() {
        let [images, captions] = failures_of(5, 2);
        let candidate = |index, score, is_match| Candidate { index, score, is_match };
        assert_eq!(
            images,
            [FailedQuery {
                query: 0,
                rank: 4,
                best_match: candidate(0, 0.4, true),
                top: vec![candidate(2, 0.9, false), candidate(3, 0.8, false)],
            }]
        );
        let queries: Vec<_> = captions.iter().map(|failure| (failure.query, failure.rank)).collect();
        assert_eq!(queries, [(4, 3), (1, 2), (3, 2)]);
        // Images 0 and 1 are tied, so the later one ranks first.
        assert_eq!(captions[0].top, [candidate(1, 0.7, false), candidate(0, 0.7, false)]);
        assert_eq!(captions[0].best_match, candidate(2, 0.5, true));
        assert_eq!(failures_of(1, 2)[1].len(), 1);
    }

    /// Ranks are counted, candidates are sorted: two computations of the same order.
    #[test]
    fn best_match_is_at_its_rank_among_the_candidates() {
        for failure in failures_of(9, 9).iter().flatten() {
            let above = failure.rank as usize - 1;
            assert_eq!(failure.top[above], failure.best_match);
            assert!(failure.top[..above].iter().all(|candidate| !candidate.is_match));
        }
    }

    #[test]
    fn ranks_of_another_size_are_rejected() {
        let captions = CaptionImages::uniform(3, 2).unwrap();
        let scores = Scores::new(&SCORES, 3, 6).unwrap();
        assert!(failures(&scores, &captions, &Ranks::default(), 1, 1).is_err());
    }
}
