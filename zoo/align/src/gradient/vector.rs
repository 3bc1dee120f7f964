//! Merged tokens computed as vectors, by the definition. This is the fallback if products of patches have lost too many
//! digits.

use super::{
    image::{ImageGradients, ImagePairs},
    pair::PairGradient,
};
use crate::similarity::norm;
use laps_model::models::alignment::NORM_EPS;

/// A weighted sum of patches.
pub(super) struct MergedVector {
    /// Index among the tokens.
    pub(super) column: usize,
    /// Patches and their weights.
    weights: Vec<(usize, f32)>,
    /// Whether the weights are exponentials of logits, which have a gradient.
    from_logits: bool,
    vector: Vec<f32>,
    /// At least 1e-12.
    pub(super) norm: f64,
}

impl MergedVector {
    /// The group `column` of the patches `kept`.
    #[cold]
    pub(super) fn group(image: &ImagePairs<'_>, column: usize, kept: &[u32]) -> Self {
        let logit = |patch: u32| image.logits[patch as usize * image.config.groups + column];
        let peak = kept.iter().map(|&patch| logit(patch)).fold(f32::NEG_INFINITY, f32::max);
        let weights = kept.iter().map(|&patch| (patch as usize, (logit(patch) - peak).exp())).collect();
        Self::new(image, column, weights, true)
    }

    /// The fused patch.
    #[cold]
    pub(super) fn fused(image: &ImagePairs<'_>, column: usize, dropped: &[u32], weights: &[f32]) -> Self {
        let weights = dropped.iter().zip(weights).map(|(&patch, &weight)| (patch as usize, weight)).collect();
        Self::new(image, column, weights, false)
    }

    fn new(image: &ImagePairs<'_>, column: usize, weights: Vec<(usize, f32)>, from_logits: bool) -> Self {
        let width = image.config.width;
        let mut vector = vec![0.0; width];
        for &(patch, weight) in &weights {
            let patch = &image.tokens.values[patch * width..][..width];
            vector.iter_mut().zip(patch).for_each(|(sum, value)| *sum += weight * value);
        }
        Self { column, weights, from_logits, norm: norm(&vector), vector }
    }

    fn words<'a>(&self, pair: &'a PairGradient<'_>) -> std::slice::ChunksExact<'a, f32> {
        let width = self.vector.len();
        pair.image.words[pair.words.start * width..pair.words.end * width].chunks_exact(width)
    }

    /// Computes the products with the words of the caption.
    pub(super) fn multiply(&self, pair: &PairGradient<'_>, to: &mut [f32]) {
        to.iter_mut().zip(self.words(pair)).for_each(|(slot, word)| *slot = dot(&self.vector, word));
    }

    /// Adds the gradients that follow from those of the cosines.
    pub(super) fn differentiate(
        &self,
        pair: &PairGradient<'_>,
        gradients: &[f32],
        cosines: &[f32],
        sums: &mut ImageGradients,
    ) {
        let width = self.vector.len();
        let inverse = (1.0 / self.norm) as f32;
        let projection: f32 = cosines.iter().zip(gradients).map(|(cosine, gradient)| cosine * gradient).sum();
        let back = if self.norm > NORM_EPS { -projection * inverse } else { 0.0 };
        let mut own: Vec<f32> = self.vector.iter().map(|value| back * value).collect();
        let to = sums.words[pair.words.start * width..].chunks_exact_mut(width);
        for ((word, &gradient), to) in self.words(pair).zip(gradients).zip(to) {
            own.iter_mut().zip(word).for_each(|(sum, value)| *sum += gradient * value);
            to.iter_mut().zip(&self.vector).for_each(|(sum, value)| *sum += gradient * inverse * value);
        }
        own.iter_mut().for_each(|value| *value *= inverse);
        let projection: Vec<f32> = self
            .weights
            .iter()
            .map(|&(patch, _)| dot(&own, &pair.image.tokens.values[patch * width..][..width]))
            .collect();
        // The similarity does not depend on the length, so this projection is 0 except for rounding errors, which large logits
        // would amplify.
        let weights = self.weights.iter().map(|(_, weight)| weight);
        let excess = weights.clone().zip(&projection).map(|(weight, projection)| weight * projection).sum::<f32>()
            / weights.sum::<f32>();
        for (&(patch, weight), projection) in self.weights.iter().zip(projection) {
            if self.from_logits {
                sums.logits[patch * pair.image.config.groups + self.column] += weight * (projection - excess);
            }
            let to = &mut sums.tokens[patch * width..][..width];
            to.iter_mut().zip(&own).for_each(|(sum, value)| *sum += weight * value);
        }
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}
