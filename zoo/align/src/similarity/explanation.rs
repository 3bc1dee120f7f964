//! Explains a similarity as a sum of contributions.

use laps_model::{
    array::Array,
    models::alignment::{LEAKY_SLOPE, NORM_EPS},
};

use super::Engine;
use crate::{Error, Result};

/// The similarity of one image and one caption, split into contributions.
///
/// Every value is computed in double precision from the embeddings. The similarity is
/// [`class_token`](Self::class_token) plus the sum of [`patches`](Self::patches)' [`contribution`](PatchExplanation::contribution).
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The similarity; that of LAPS is from -0.2 to 2.
    pub similarity: f64,
    /// The patches, row by row from the top left.
    pub patches: Vec<PatchExplanation>,
    /// The tokens that words are compared with.
    pub tokens: Vec<TokenExplanation>,
    /// The words of the caption, `[CLS]` and `[SEP]` included.
    pub words: Vec<WordExplanation>,
    /// Contribution of the class token to the similarity; 0 without one.
    pub class_token: f64,
}

/// A patch of the image.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchExplanation {
    /// Cosine with the mean patch of the image.
    pub image_score: f64,
    /// Cosine with the mean word of the caption.
    pub caption_score: f64,
    /// Whether the caption keeps the patch.
    pub kept: bool,
    /// Contribution of the patch to the similarity.
    pub contribution: f64,
}

/// The kind of a token of an image, with the weights of the patches in it. LAPS has groups and a fused patch.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// The class token.
    Class,
    /// A group of kept patches, with the weight of every patch. Weights of kept patches sum to 1.
    Group(Vec<f64>),
    /// The patches that are not kept, with the weight of every patch.
    Fused(Vec<f64>),
    /// A single patch, by its index, of a head other than LAPS's.
    Patch(usize),
}

/// A token of the image: class token, group, fused patch or patch.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenExplanation {
    /// Its kind and the weights of the patches.
    pub kind: TokenKind,
    /// The word with the highest similarity to the token.
    pub word: usize,
    /// That similarity: the leaky ReLU of the cosine, or for a head other than LAPS's the cosine.
    pub similarity: f64,
}

/// A word of the caption.
#[derive(Clone, Debug, PartialEq)]
pub struct WordExplanation {
    /// The token with the highest similarity to the word.
    pub token: usize,
    /// That similarity: the leaky ReLU of the cosine. For a head other than LAPS's it is what the word adds to the similarity,
    /// times the number of words.
    pub similarity: f64,
    /// The token with the highest similarity among those that are made of patches, which the class token is not.
    pub spatial_token: usize,
    /// The similarity to it; for a head other than LAPS's the sum of `patches`.
    pub spatial_similarity: f64,
    /// Contribution of each patch to `spatial_similarity`. For LAPS it counts for the similarity of image and caption if
    /// `spatial_token` is `token`.
    pub patches: Vec<f64>,
}

impl Engine {
    /// Splits the similarity of an image `(tokens, width)` and a caption `(words, width)` into contributions.
    ///
    /// # Errors
    /// Embeddings of other sizes, an empty caption, and values that are not finite.
    pub fn explain(&self, image: &Array, caption: &Array) -> Result<Explanation> {
        let config = *self.config();
        let (tokens, width) = (config.tokens(), config.width);
        check_embeddings("image", image, &format!("[{tokens}, {width}]"), image.dims() == [tokens, width])?;
        let fits = matches!(*caption.dims(), [words, columns] if words > 0 && columns == width);
        check_embeddings("caption", caption, &format!("[1 or more, {width}]"), fits)?;

        let spatial = &image.values()[(tokens - config.patches) * width..];
        let patches: Vec<Vec<f64>> = spatial.chunks_exact(width).map(doubles).collect();
        let words: Vec<Vec<f64>> = caption.values().chunks_exact(width).map(doubles).collect();
        let [image_scores, caption_scores] = [mean(&patches), mean(&words)].map(|mean| {
            let mean = normalized(&mean);
            patches.iter().map(|patch| dot(&mean, &normalized(patch))).collect::<Vec<f64>>()
        });
        let scores: Vec<f64> =
            image_scores.iter().zip(&caption_scores).map(|(image, caption)| image + caption).collect();
        let kept = largest(&scores, config.kept);

        // Each token as weights of the patches, the class token as a vector of its own.
        let mut kinds = Vec::with_capacity(config.aligned_tokens());
        let mut vectors = Vec::with_capacity(config.aligned_tokens());
        if config.has_class_token {
            vectors.push(doubles(&image.values()[..width]));
            kinds.push(TokenKind::Class);
        }
        let stride = config.groups;
        let logits = self.aggregation.as_ref().map_or_else(Vec::new, |network| network.logits(spatial, stride));
        for group in 0..config.groups {
            let of_group = |patch: usize| f64::from(logits[patch * stride + group]);
            let weights = softmax(config.patches, |patch| kept[patch].then(|| of_group(patch)));
            vectors.push(weighted(&weights, &patches));
            kinds.push(TokenKind::Group(weights));
        }
        let weights = softmax(config.patches, |patch| (!kept[patch]).then(|| scores[patch]));
        vectors.push(weighted(&weights, &patches));
        kinds.push(TokenKind::Fused(weights));

        let directions: Vec<Vec<f64>> = words.iter().map(|word| normalized(word)).collect();
        let similarity = |token: usize, word: usize| leaky_relu(dot(&normalized(&vectors[token]), &directions[word]));
        // What each patch adds to the similarity of a token and a word.
        let parts = |token: usize, word: usize| -> Vec<f64> {
            let (TokenKind::Group(weights) | TokenKind::Fused(weights)) = &kinds[token] else {
                return vec![0.0; patches.len()];
            };
            let norm = norm(&vectors[token]);
            let slope = leaky_slope(dot(&vectors[token], &directions[word]));
            let part = |(weight, patch): (&f64, &Vec<f64>)| slope * weight * dot(patch, &directions[word]) / norm;
            weights.iter().zip(&patches).map(part).collect()
        };
        let mut total = vec![0.0; patches.len()];
        let mut class_token = 0.0;
        let mut add = |share: f64, token: usize, value: f64, parts: &[f64]| {
            total.iter_mut().zip(parts).for_each(|(total, part)| *total += share * part);
            if kinds[token] == TokenKind::Class {
                class_token += share * value;
            }
        };
        let mut explained_words = Vec::with_capacity(words.len());
        for word in 0..words.len() {
            let (token, value) = best(kinds.len(), &|token| similarity(token, word));
            add(1.0 / words.len() as f64, token, value, &parts(token, word));
            let (spatial_token, spatial_similarity) = best(kinds.len(), &|token| match kinds[token] {
                TokenKind::Class => f64::NEG_INFINITY,
                _ => similarity(token, word),
            });
            let patches = parts(spatial_token, word);
            explained_words.push(WordExplanation {
                token,
                similarity: value,
                spatial_token,
                spatial_similarity,
                patches,
            });
        }
        let mut of_tokens = Vec::with_capacity(kinds.len());
        for token in 0..kinds.len() {
            let (word, value) = best(words.len(), &|word| similarity(token, word));
            add(1.0 / kinds.len() as f64, token, value, &parts(token, word));
            of_tokens.push((word, value));
        }
        let mean_of = |values: &mut dyn Iterator<Item = f64>, count: usize| values.sum::<f64>() / count as f64;
        let similarity = mean_of(&mut explained_words.iter().map(|word| word.similarity), words.len())
            + mean_of(&mut of_tokens.iter().map(|(_, value)| *value), kinds.len());
        let patches = (0..patches.len()).map(|patch| PatchExplanation {
            image_score: image_scores[patch],
            caption_score: caption_scores[patch],
            kept: kept[patch],
            contribution: total[patch],
        });
        let tokens = kinds.into_iter().zip(of_tokens);
        Ok(Explanation {
            similarity,
            patches: patches.collect(),
            tokens: tokens.map(|(kind, (word, similarity))| TokenExplanation { kind, word, similarity }).collect(),
            words: explained_words,
            class_token,
        })
    }
}

/// Checks embeddings of an image or a caption: whether their shape `fits`, and finite values.
pub(super) fn check_embeddings(what: &str, array: &Array, shape: &str, fits: bool) -> Result<()> {
    let bad = |expected: String, found: String| Error::Operation { operation: "explain", expected, found };
    if !fits {
        return Err(bad(format!("embeddings of the {what} of shape {shape}"), format!("{:?}", array.dims())));
    }
    match array.values().iter().find(|value| !value.is_finite()) {
        Some(value) => Err(bad(format!("finite embeddings of the {what}"), value.to_string())),
        None => Ok(()),
    }
}

/// The first index below `count` with the largest value, and that value.
pub(super) fn best(count: usize, value: &dyn Fn(usize) -> f64) -> (usize, f64) {
    (0..count)
        .map(|index| (index, value(index)))
        .fold((0, f64::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best })
}

pub(super) fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt().max(NORM_EPS)
}

pub(super) fn normalized(vector: &[f64]) -> Vec<f64> {
    let norm = norm(vector);
    vector.iter().map(|value| value / norm).collect()
}

pub(super) fn mean(vectors: &[Vec<f64>]) -> Vec<f64> {
    weighted(&vec![1.0 / vectors.len() as f64; vectors.len()], vectors)
}

/// The sum of `vectors` times `weights`.
pub(super) fn weighted(weights: &[f64], vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for (weight, vector) in weights.iter().zip(vectors) {
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += weight * value);
    }
    sum
}

/// Softmax over the indices for which `logit` is not None; 0 elsewhere.
pub(super) fn softmax(count: usize, logit: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
    let logits: Vec<f64> = (0..count).map(|index| logit(index).unwrap_or(f64::NEG_INFINITY)).collect();
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return vec![0.0; count];
    }
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Marks the `count` largest; of equal ones the first.
fn largest(values: &[f64], count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut marked = vec![false; values.len()];
    order.into_iter().take(count).for_each(|index| marked[index] = true);
    marked
}

fn leaky_slope(cosine: f64) -> f64 {
    if cosine < 0.0 { LEAKY_SLOPE } else { 1.0 }
}

pub(super) fn leaky_relu(cosine: f64) -> f64 {
    cosine * leaky_slope(cosine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::{AlignmentConfig, CaptionMatrix, EngineOptions, tests::samples::*};

    fn explained(config: AlignmentConfig, words: usize, seed: u64) -> (Explanation, f32) {
        let mut random = SampleGenerator(seed);
        let weights = random.weights(&config, 1.0);
        let engine = Engine::new(config, &weights, EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap();
        let image = random.embeddings([1, config.tokens(), config.width], 0.7);
        let image = Array::new(&[config.tokens(), config.width], image.into_values()).unwrap();
        let caption = random.captions(&[words], config.width, 0.7).remove(0);
        let images = Array::new(&[1, config.tokens(), config.width], image.values().to_vec()).unwrap();
        let captions = CaptionMatrix::from_arrays(std::slice::from_ref(&caption), config.width).unwrap();
        let similarity = engine.similarities(&images, &captions).unwrap().values()[0];
        (engine.explain(&image, &caption).unwrap(), similarity)
    }

    #[test]
    fn parts_add_up_to_the_similarity_of_the_engine() {
        for (seed, config) in [VIT, SWIN].into_iter().cycle().take(20).enumerate() {
            let (explanation, similarity) = explained(config, 3 + seed, 1 + seed as u64);
            // The engine is in single precision: sums of 512 products of about 1e-3 each.
            assert!((explanation.similarity - f64::from(similarity)).abs() < 1e-6, "{seed}");
            let sum: f64 = explanation.patches.iter().map(|patch| patch.contribution).sum();
            // Rounding of double precision.
            assert!((explanation.class_token + sum - explanation.similarity).abs() < 1e-12, "{seed}");
            assert_eq!(explanation.patches.iter().filter(|patch| patch.kept).count(), config.kept);
            for word in &explanation.words {
                let sum: f64 = word.patches.iter().sum();
                assert!((sum - word.spatial_similarity).abs() < 1e-12, "{seed}");
                let is_class = matches!(explanation.tokens[word.token].kind, TokenKind::Class);
                assert_eq!(word.token == word.spatial_token, !is_class, "{seed}");
                assert!(word.spatial_similarity <= word.similarity, "{seed}");
            }
            for token in &explanation.tokens {
                let (TokenKind::Group(weights) | TokenKind::Fused(weights)) = &token.kind else { continue };
                let of_kept = matches!(token.kind, TokenKind::Group(_));
                assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{seed}");
                let outside = weights.iter().zip(&explanation.patches).filter(|(_, patch)| patch.kept != of_kept);
                assert!(outside.into_iter().all(|(&weight, _)| weight == 0.0), "{seed}");
            }
        }
    }

    #[test]
    fn embeddings_of_other_sizes_and_nan_are_rejected() {
        let mut random = SampleGenerator(7);
        let weights = random.weights(&SWIN, 1.0);
        let engine = Engine::new(SWIN, &weights, EngineOptions::default()).unwrap();
        let zeros = |shape: &[usize]| Array::new(shape, vec![0.0; shape.iter().product()]).unwrap();
        let [image, caption] = [zeros(&[49, 512]), zeros(&[4, 512])];
        assert!(engine.explain(&zeros(&[48, 512]), &caption).is_err());
        assert!(engine.explain(&image, &zeros(&[0, 512])).is_err());
        assert!(engine.explain(&image, &zeros(&[4, 511])).is_err());
        let mut values = vec![0.0; 4 * 512];
        values[9] = f32::NAN;
        assert!(engine.explain(&image, &Array::new(&[4, 512], values).unwrap()).is_err());
        // Zero vectors have no direction, and the similarity is 0 as with the engine.
        assert_eq!(engine.explain(&image, &caption).unwrap().similarity, 0.0);
    }
}
