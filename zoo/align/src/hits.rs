//! Hits, and how many of them lie within rounding.

use super::{CaptionImages, RetrievalError, Scores};

/// How many queries have a right answer among the first ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Those that have it there whatever rounding did.
    pub certain: usize,
    /// Those that have it there by the values as they are, ties decided against it.
    pub found: usize,
    /// Those that may have it there: as well as certain, or by what rounding may have done.
    pub possible: usize,
}

/// Hits among the first 1, 5 and 10 of the whole matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionHits {
    /// Captions for an image.
    pub i2t: [Hits; 3],
    /// Images for a caption.
    pub t2i: [Hits; 3],
}

/// The first so many, for each of [`DirectionHits`].
pub const CUTS: [usize; 3] = [1, 5, 10];

/// Counts the hits of a matrix in which a score may be off by up to half of `rounding`: two scores that are nearer to each
/// other than that have no order.
///
/// # Errors
/// [`RetrievalError::Size`] where matrix and captions differ in size.
pub fn hits(scores: &Scores, captions: &CaptionImages, rounding: f32) -> Result<DirectionHits, RetrievalError> {
    let (images, columns) = (captions.images(), captions.captions());
    if (scores.images(), scores.captions()) != (images, columns) {
        return Err(RetrievalError::Size {
            expected: format!("{images} images x {columns} captions"),
            found: format!("{} images x {} captions", scores.images(), scores.captions()),
        });
    }
    let goals: Result<Vec<f32>, _> =
        (0..columns).map(|caption| scores.at(captions.image(caption as u32) as usize, caption)).collect();
    let goals = goals?;
    let mut of_captions = vec![Above::default(); columns];
    let mut all = DirectionHits::default();
    let mut buffer = Vec::new();
    for image in 0..images {
        let row = scores.row(image, &mut buffer)?;
        let own = captions.of(image..image + 1);
        let best = own.iter().map(|&caption| row[caption as usize]).fold(f32::NEG_INFINITY, f32::max);
        let mut of_image = Above::default();
        for (caption, (&score, goal)) in row.iter().zip(&goals).enumerate() {
            if captions.image(caption as u32) as usize != image {
                of_image.add(score - best, rounding);
                of_captions[caption].add(score - goal, rounding);
            }
        }
        of_image.count(&mut all.i2t);
    }
    of_captions.iter().for_each(|above| above.count(&mut all.t2i));
    Ok(all)
}

/// Wrong candidates of a query, by how far they are above the right one.
#[derive(Clone, Copy, Default)]
struct Above {
    surely: usize,
    found: usize,
    possibly: usize,
}

impl Above {
    fn add(&mut self, margin: f32, rounding: f32) {
        self.surely += usize::from(margin > rounding);
        self.found += usize::from(margin >= 0.0);
        self.possibly += usize::from(margin >= -rounding);
    }

    fn count(self, hits: &mut [Hits; 3]) {
        for (hits, cut) in hits.iter_mut().zip(CUTS) {
            hits.certain += usize::from(self.possibly < cut);
            hits.found += usize::from(self.found < cut);
            hits.possible += usize::from(self.surely < cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hits, hits};
    use crate::{CaptionImages, Protocol, Scores, evaluate};

    /// Two captions for each of three images. The second image has a rival within rounding, the third one far above.
    #[test]
    fn queries_within_rounding_are_possible_and_not_certain() {
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
        // The captions of the first image and one of the second are sure; one is another's, and the third image has one
        // that scores far higher elsewhere and one that does not.
        assert_eq!(found.t2i[0], Hits { certain: 4, found: 4, possible: 4 });
        let wide = hits(&scores, &captions, 0.45).unwrap();
        assert_eq!(wide.i2t[0], Hits { certain: 1, found: 2, possible: 2 });
        assert_eq!(wide.t2i[0], Hits { certain: 3, found: 4, possible: 6 });
    }

    /// Without a tie the hits are the recalls, which are counted elsewhere.
    #[test]
    fn hits_are_the_recalls_times_the_queries() {
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
            // Quotients of whole numbers, multiplied in another order.
            assert!((hits.found as f64 / 200.0 * 100.0 - recall).abs() < 1e-12);
        }
        assert!(hits(&scores, &CaptionImages::uniform(20, 5).unwrap(), 0.0).is_err());
    }
}
