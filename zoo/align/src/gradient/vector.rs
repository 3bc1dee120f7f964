//! Tokens merged as vectors, by the definition: the way out where products of patches cancel too many digits.

use super::{
    image::{Image, Sums},
    pair::Pair,
};
use crate::similarity::norm;

/// Norms are at least this.
const LEAST: f64 = 1e-12;

/// A token that is a weighted sum of patches.
pub(super) struct Merged {
    /// Its place among the tokens.
    pub(super) column: usize,
    /// Patches and their weights.
    parts: Vec<(usize, f32)>,
    /// Whether the weights are exponentials of logits, up to a factor.
    learned: bool,
    vector: Vec<f32>,
    /// At least 1e-12.
    pub(super) norm: f64,
}

impl Merged {
    /// A group of the patches `kept`.
    #[cold]
    pub(super) fn group(image: &Image<'_>, column: usize, kept: &[u32]) -> Self {
        let logit = |patch: u32| image.logits[patch as usize * image.config.groups + column];
        let peak = kept.iter().map(|&patch| logit(patch)).fold(f32::NEG_INFINITY, f32::max);
        let parts = kept.iter().map(|&patch| (patch as usize, (logit(patch) - peak).exp())).collect();
        Self::new(image, column, parts, true)
    }

    /// The fused patch.
    #[cold]
    pub(super) fn fused(image: &Image<'_>, (column, dropped): (usize, &[u32]), weights: &[f32]) -> Self {
        let parts = dropped.iter().zip(weights).map(|(&patch, &weight)| (patch as usize, weight)).collect();
        Self::new(image, column, parts, false)
    }

    fn new(image: &Image<'_>, column: usize, parts: Vec<(usize, f32)>, learned: bool) -> Self {
        let width = image.config.width;
        let mut vector = vec![0.0; width];
        for &(patch, weight) in &parts {
            let patch = &image.tokens[patch * width..][..width];
            vector.iter_mut().zip(patch).for_each(|(sum, value)| *sum += weight * value);
        }
        Self { column, parts, learned, norm: norm(&vector), vector }
    }

    fn words<'a>(&self, pair: &'a Pair<'_>) -> std::slice::ChunksExact<'a, f32> {
        let width = self.vector.len();
        pair.image.words[pair.words.start * width..pair.words.end * width].chunks_exact(width)
    }

    /// Products with the words.
    pub(super) fn multiply(&self, pair: &Pair<'_>, to: &mut [f32]) {
        to.iter_mut().zip(self.words(pair)).for_each(|(slot, word)| *slot = dot(&self.vector, word));
    }

    /// Adds what the gradients with respect to the cosines give.
    pub(super) fn differentiate(&self, pair: &Pair<'_>, gradients: &[f32], cosines: &[f32], sums: &mut Sums) {
        let width = self.vector.len();
        let inverse = (1.0 / self.norm) as f32;
        let projection: f32 = cosines.iter().zip(gradients).map(|(cosine, gradient)| cosine * gradient).sum();
        let back = if self.norm > LEAST { -projection * inverse } else { 0.0 };
        let mut own: Vec<f32> = self.vector.iter().map(|value| back * value).collect();
        let to = sums.words[pair.words.start * width..].chunks_exact_mut(width);
        for ((word, &gradient), to) in self.words(pair).zip(gradients).zip(to) {
            own.iter_mut().zip(word).for_each(|(sum, value)| *sum += gradient * value);
            to.iter_mut().zip(&self.vector).for_each(|(sum, value)| *sum += gradient * inverse * value);
        }
        own.iter_mut().for_each(|value| *value *= inverse);
        let projection: Vec<f32> =
            self.parts.iter().map(|&(patch, _)| dot(&own, &pair.image.tokens[patch * width..][..width])).collect();
        // The length has no gradient, so that this is 0 but for rounding, which large logits would magnify.
        let weights = self.parts.iter().map(|(_, weight)| weight);
        let excess = weights.clone().zip(&projection).map(|(weight, projection)| weight * projection).sum::<f32>()
            / weights.sum::<f32>();
        for (&(patch, weight), projection) in self.parts.iter().zip(projection) {
            if self.learned {
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
