//! Hits at K, with bounds of what rounding can change.

use super::{CaptionImages, RetrievalError, Scores};

/// Number of queries with a match among the top K candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Queries that are hits whatever the rounding.
    pub certain: usize,
    /// Queries that are hits by the values of the matrix, with ties decided against the match.
    pub found: usize,
    /// Queries that are hits for some rounding.
    pub possible: usize,
}

/// Hits at 1, 5 and 10 in the whole matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionHits {
    /// Captions for an image.
    pub i2t: [Hits; 3],
    /// Images for a caption.
    pub t2i: [Hits; 3],
}

/// The K of each element of [`DirectionHits`].
pub const TOP_K: [usize; 3] = [1, 5, 10];

/// Counts the hits of a matrix whose scores are uncertain by half of `rounding`: the order of two scores that differ by
/// less than `rounding` is unknown.
///
/// # Errors
/// [`RetrievalError::Size`] if matrix and captions differ in size.
pub fn hits(scores: &Scores, captions: &CaptionImages, rounding: f32) -> Result<DirectionHits, RetrievalError> {
    let (images, columns) = (captions.images(), captions.captions());
    if (scores.images(), scores.captions()) != (images, columns) {
        return Err(RetrievalError::Size {
            expected: format!("{images} images x {columns} captions"),
            found: format!("{} images x {} captions", scores.images(), scores.captions()),
        });
    }
    let own_scores: Result<Vec<f32>, _> =
        (0..columns).map(|caption| scores.get(captions.image(caption as u32) as usize, caption)).collect();
    let own_scores = own_scores?;
    let mut caption_negatives = vec![NegativesAbove::default(); columns];
    let mut all = DirectionHits::default();
    let mut buffer = Vec::new();
    for image in 0..images {
        let row = scores.row(image, &mut buffer)?;
        let own = captions.of_images(image..image + 1);
        let best = own.iter().map(|&caption| row[caption as usize]).fold(f32::NEG_INFINITY, f32::max);
        let mut image_negatives = NegativesAbove::default();
        for (caption, (&score, own_score)) in row.iter().zip(&own_scores).enumerate() {
            if captions.image(caption as u32) as usize != image {
                image_negatives.add(score - best, rounding);
                caption_negatives[caption].add(score - own_score, rounding);
            }
        }
        image_negatives.count_hits(&mut all.i2t);
    }
    caption_negatives.iter().for_each(|negatives| negatives.count_hits(&mut all.t2i));
    Ok(all)
}

/// Number of negatives that score at least as high as the best match of a query.
#[derive(Clone, Copy, Default)]
struct NegativesAbove {
    /// Higher whatever the rounding.
    certain: usize,
    /// By the values of the matrix.
    found: usize,
    /// For some rounding.
    possible: usize,
}

impl NegativesAbove {
    /// Adds a negative that scores `difference` more than the match.
    fn add(&mut self, difference: f32, rounding: f32) {
        self.certain += usize::from(difference > rounding);
        self.found += usize::from(difference >= 0.0);
        self.possible += usize::from(difference >= -rounding);
    }

    fn count_hits(self, hits: &mut [Hits; 3]) {
        for (hits, k) in hits.iter_mut().zip(TOP_K) {
            hits.certain += usize::from(self.possible < k);
            hits.found += usize::from(self.found < k);
            hits.possible += usize::from(self.certain < k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hits, hits};
    use crate::{CaptionImages, Protocol, Scores, evaluate};

    /// Three images with two captions each. A negative of the second image is within rounding of its best match; a negative
    /// of the third image is far above.
    #[test]
    fn hits_within_rounding_are_possible_but_not_certain() {
        let captions = CaptionImages::uniform(3, 2).unwrap();
        let values = [
            [0.9, 0.8, 0.1, 0.2, 0.1, 0.1], //
            [0.1, 0.2, 0.7, 0.5, 0.699, 0.0],
            [0.1, 0.3, 0.2, 0.9, 0.3, 0.3],
        ];
        let values: Vec<f32> = values.into_iter().flatten().collect();
        let scores = Scores::new(&values, 3, 6).unwrap();
        let found = hits(&scores, &captions, 0.01).unwrap();
        assert_eq!(found.i2t[0], Hits { certain: 1, found: 2, possible: 2 });
        // Certain: both captions of the first image and one of the second. The other caption of the second image is a miss.
        // Of the third image, one caption scores far higher with another image and one does not.
        assert_eq!(found.t2i[0], Hits { certain: 4, found: 4, possible: 4 });
        let wide = hits(&scores, &captions, 0.45).unwrap();
        assert_eq!(wide.i2t[0], Hits { certain: 1, found: 2, possible: 2 });
        assert_eq!(wide.t2i[0], Hits { certain: 3, found: 4, possible: 6 });
    }

    /// Without ties, hits and recalls agree. They are computed separately.
    #[test]
    fn hits_equal_the_recalls_without_ties() {
        let mut random = laps_model::random::SplitMix64::named(5, "hits");
        let values: Vec<f32> = (0..40 * 200).map(|_| random.uniform() as f32).collect();
        let scores = Scores::new(&values, 40, 200).unwrap();
        let captions = CaptionImages::uniform(40, 5).unwrap();
        let found = hits(&scores, &captions, 1e-9).unwrap();
        let expected = evaluate(&scores, &captions, Protocol::F30k).unwrap().pessimistic;
        for (hits, recall) in found.i2t.iter().zip([expected.i2t.r1, expected.i2t.r5, expected.i2t.r10]) {
            assert_eq!(hits.found as f64 / 40.0 * 100.0, recall);
        }
        for (hits, recall) in found.t2i.iter().zip([expected.t2i.r1, expected.t2i.r5, expected.t2i.r10]) {
            // Quotients of integers, multiplied in another order.
            assert!((hits.found as f64 / 200.0 * 100.0 - recall).abs() < 1e-12);
        }
        assert!(hits(&scores, &CaptionImages::uniform(20, 5).unwrap(), 0.0).is_err());
    }
}
