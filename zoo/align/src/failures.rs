//! The queries that retrieval fails hardest: how far down the right answer is, and what stands above it.

use std::cmp::{Ordering, Reverse};

use super::{CaptionImages, Ranks, RetrievalError, Scores, TieRule};

/// A candidate and its score with the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Row of an image, or column of a caption.
    pub index: usize,
    /// The similarity.
    pub score: f32,
    /// Whether it belongs to the query.
    pub is_right: bool,
}

/// A query whose right answer does not come first.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Row of an image, or column of a caption.
    pub query: usize,
    /// Rank of the right answer, from 1; of an image, of the best of its captions.
    pub rank: u32,
    /// The right answer of that rank.
    pub right: Answer,
    /// The first candidates, the best one first.
    pub first: Vec<Answer>,
}

/// The `count` images, and the `count` captions, with the highest ranks above 1 among `ranks`, which are those of the whole
/// matrix; of equal ranks the earlier query counts. Each has its first `depth` candidates. Equal scores are in the order of
/// [`TieRule::HEADLINE`].
///
/// Reads the rows of those images, and all rows once if there is such a caption.
pub fn failures(
    scores: &Scores,
    captions: &CaptionImages,
    ranks: &Ranks,
    [count, depth]: [usize; 2],
) -> Result<[Vec<Failure>; 2], RetrievalError> {
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
    let mut buffer = Vec::new();
    let images = hardest(ranks.i2t.iter().map(|rank| rank.under(TieRule::HEADLINE)), count);
    let images = images.into_iter().map(|(query, rank)| {
        let row = scores.row(query, &mut buffer)?;
        Ok(Failure::new(query, rank, row, depth, |caption| captions.image(caption as u32) as usize == query))
    });
    let images = images.collect::<Result<_, RetrievalError>>()?;

    let hard = hardest(ranks.t2i.iter().map(|rank| rank.under(TieRule::HEADLINE)), count);
    let mut columns = vec![Vec::with_capacity(scores.images()); hard.len()];
    if !hard.is_empty() {
        for image in 0..scores.images() {
            let row = scores.row(image, &mut buffer)?;
            columns.iter_mut().zip(&hard).for_each(|(column, &(query, _))| column.push(row[query]));
        }
    }
    let texts = hard.into_iter().zip(columns).map(|((query, rank), column)| {
        let own = captions.image(query as u32) as usize;
        Failure::new(query, rank, &column, depth, |image| image == own)
    });
    Ok([images, texts.collect()])
}

/// Queries and ranks from 1, the highest ranks first.
fn hardest(ranks: impl Iterator<Item = u32>, count: usize) -> Vec<(usize, u32)> {
    let mut failed: Vec<(usize, u32)> = ranks.map(|rank| rank + 1).enumerate().filter(|&(_, rank)| rank > 1).collect();
    failed.sort_by_key(|&(query, rank)| (Reverse(rank), query));
    failed.truncate(count);
    failed
}

impl Failure {
    fn new(query: usize, rank: u32, scores: &[f32], depth: usize, is_right: impl Fn(usize) -> bool) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Of equal scores the later first; there is no NaN where there are ranks.
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal).then(b.cmp(&a)));
        let answer = |&index: &usize| Answer { index, score: scores[index], is_right: is_right(index) };
        // The right answer that comes first is the one that the rank is of: it is at that place of the order.
        let right = order.iter().find(|&&index| is_right(index)).unwrap_or(&query);
        Self { query, rank, right: answer(right), first: order.iter().take(depth).map(answer).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::evaluate, *};
    use crate::Protocol;

    /// Three images of two captions each. Image 0 finds its own captions third; caption 4 finds its image last, with a tie.
    const SCORES: [f32; 18] = [
        0.4, 0.1, 0.9, 0.8, 0.7, 0.0, //
        0.2, 0.0, 0.9, 0.6, 0.7, 0.3, //
        0.1, 0.3, 0.0, 0.2, 0.5, 0.9, //
    ];

    fn found(count: usize) -> [Vec<Failure>; 2] {
        let captions = CaptionImages::uniform(3, 2).unwrap();
        let scores = Scores::new(&SCORES, 3, 6).unwrap();
        let evaluation = evaluate(&scores, &captions, Protocol::F30k).unwrap();
        failures(&scores, &captions, &evaluation.folds[0].ranks, [count, 2]).unwrap()
    }

    #[test]
    fn the_hardest_come_first_with_what_stands_above() {
        let [images, captions] = found(5);
        let answer = |index, score, is_right| Answer { index, score, is_right };
        assert_eq!(
            images,
            [Failure {
                query: 0,
                rank: 4,
                right: answer(0, 0.4, true),
                first: vec![answer(2, 0.9, false), answer(3, 0.8, false)],
            }]
        );
        let queries: Vec<_> = captions.iter().map(|failure| (failure.query, failure.rank)).collect();
        assert_eq!(queries, [(4, 3), (1, 2), (3, 2)]);
        // Images 0 and 1 tie; the later counts first.
        assert_eq!(captions[0].first, [answer(1, 0.7, false), answer(0, 0.7, false)]);
        assert_eq!(captions[0].right, answer(2, 0.5, true));
        assert_eq!(found(1)[1].len(), 1);
    }

    /// The place of the right answer in the order is its rank, which was counted in another way.
    #[test]
    fn the_rank_is_the_place_in_the_order() {
        let captions = CaptionImages::uniform(3, 2).unwrap();
        let scores = Scores::new(&SCORES, 3, 6).unwrap();
        let ranks = evaluate(&scores, &captions, Protocol::F30k).unwrap().folds.remove(0).ranks;
        for failure in failures(&scores, &captions, &ranks, [9, 9]).unwrap().iter().flatten() {
            assert_eq!(failure.first[failure.rank as usize - 1], failure.right);
            assert!(failure.first[..failure.rank as usize - 1].iter().all(|answer| !answer.is_right));
        }
    }

    #[test]
    fn ranks_of_a_part_are_refused() {
        let captions = CaptionImages::uniform(3, 2).unwrap();
        let scores = Scores::new(&SCORES, 3, 6).unwrap();
        assert!(failures(&scores, &captions, &Ranks::default(), [1, 1]).is_err());
    }
}
