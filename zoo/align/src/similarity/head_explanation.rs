//! Explanations for the other heads that compare tokens with words.

use laps_model::{
    array::Array,
    heads::{
        ChanAggregation, HeadConfig, HeadSizes, LSE_TEMPERATURE, SOFT_NORM_EPS, TOKEN_TEMPERATURE, WORD_TEMPERATURE,
    },
    models::alignment::NORM_EPS,
};

use super::explanation::{
    Explanation, PatchExplanation, TokenExplanation, TokenKind, WordExplanation, best, check_embeddings, dot, doubles,
    leaky_relu, mean, normalized, softmax, weighted,
};
use crate::{Error, Result};

/// Splits the similarity of an image `(tokens, width)` and a caption `(words, width)` by a head without parameters into
/// contributions.
///
/// A word's similarity is what it adds, times the number of words: their mean is the similarity. For `scan_t2i` and `chan` with
/// `mean` it is the word's term of the definition. `chan` with `lse`, a logarithm of a sum, is divided by the shares of the
/// words in that sum. The map of a word holds what each patch adds to the word's similarity: for `scan_*` the attention,
/// weighted by cosines, for `max_mean` and `chan` the best tokens.
///
/// # Errors
/// A head that pools, which compares no tokens with words, and heads whose similarity is not a sum of parts; embeddings of
/// other sizes, an empty caption, and values that are not finite.
pub fn explain_head(head: &HeadConfig, sizes: &HeadSizes, image: &Array, caption: &Array) -> Result<Explanation> {
    let HeadSizes { tokens: count, width, .. } = *sizes;
    check_embeddings("image", image, &format!("[{count}, {width}]"), image.dims() == [count, width])?;
    let fits = matches!(*caption.dims(), [words, columns] if words > 0 && columns == width);
    check_embeddings("caption", caption, &format!("[1 or more, {width}]"), fits)?;
    let directions = |array: &Array| -> Vec<Vec<f64>> {
        array.values().chunks_exact(width).map(|row| normalized(&doubles(row))).collect()
    };
    let pair = Pair::new(directions(image), directions(caption));
    let [tokens, words] = [pair.tokens.len(), pair.words.len()];
    let parts = match *head {
        HeadConfig::ScanT2i => pair.words_to_tokens(),
        HeadConfig::ScanI2t => pair.tokens_to_words(),
        HeadConfig::ScanAll => half_sum(pair.words_to_tokens(), &pair.tokens_to_words()),
        HeadConfig::MaxMean => half_sum(pair.best_tokens(leaky_relu), &pair.best_words()),
        HeadConfig::Chan { aggregation: ChanAggregation::Mean } => pair.best_tokens(|cosine| cosine),
        HeadConfig::Chan { aggregation: ChanAggregation::Lse } => pair.shares_of_words(),
        _ => {
            return Err(Error::Operation {
                operation: "explain",
                expected: "a head whose similarity is a sum over tokens and words".to_owned(),
                found: match head.pools() {
                    true => format!("`{head}`, which compares one vector an image with one vector a caption"),
                    false => format!("`{head}`, whose similarity is not such a sum"),
                },
            });
        }
    };
    // Attention distributes a word over tokens; the other heads choose one.
    let is_attention = matches!(head, HeadConfig::ScanT2i | HeadConfig::ScanI2t | HeadConfig::ScanAll);
    let fit = |token: usize, word: usize| if is_attention { parts[token][word] } else { pair.cosines[token][word] };
    let first = usize::from(sizes.has_class_token);
    let of_words = (0..words).map(|word| {
        let column: Vec<f64> = parts.iter().map(|row| row[word]).collect();
        WordExplanation {
            token: best(tokens, &|token| fit(token, word)).0,
            similarity: column.iter().sum(),
            spatial_token: first + best(tokens - first, &|patch| fit(first + patch, word)).0,
            spatial_similarity: column[first..].iter().sum(),
            patches: column[first..].to_vec(),
        }
    });
    let of_tokens = (0..tokens).map(|token| {
        let word = best(words, &|word| fit(token, word)).0;
        let kind = if token < first { TokenKind::Class } else { TokenKind::Patch(token - first) };
        TokenExplanation { kind, word, similarity: pair.cosines[token][word] }
    });
    let added: Vec<f64> = parts.iter().map(|row| row.iter().sum::<f64>() / words as f64).collect();
    let raw = |array: &Array| -> Vec<Vec<f64>> { array.values().chunks_exact(width).map(doubles).collect() };
    let [image_mean, caption_mean] = [&raw(image)[first..], &raw(caption)[..]].map(|rows| normalized(&mean(rows)));
    let patches = (first..tokens).map(|token| PatchExplanation {
        image_score: dot(&image_mean, &pair.tokens[token]),
        caption_score: dot(&caption_mean, &pair.tokens[token]),
        kept: true,
        contribution: added[token],
    });
    Ok(Explanation {
        similarity: added.iter().sum(),
        patches: patches.collect(),
        tokens: of_tokens.collect(),
        words: of_words.collect(),
        class_token: added[..first].iter().sum(),
    })
}

/// Directions of the tokens and words of a pair, and their cosines `(tokens, words)`.
struct Pair {
    tokens: Vec<Vec<f64>>,
    words: Vec<Vec<f64>>,
    cosines: Vec<Vec<f64>>,
}

/// Contribution of each token and word, `(tokens, words)`, whose sum is the similarity times the number of words.
type Contributions = Vec<Vec<f64>>;

impl Pair {
    fn new(tokens: Vec<Vec<f64>>, words: Vec<Vec<f64>>) -> Self {
        let cosines = tokens.iter().map(|token| words.iter().map(|word| dot(token, word)).collect()).collect();
        Self { tokens, words, cosines }
    }

    fn zeros(&self) -> Contributions {
        vec![vec![0.0; self.words.len()]; self.tokens.len()]
    }

    /// Contributions by word: `column` gives those of all tokens.
    fn by_word(&self, column: impl Fn(usize) -> Vec<f64>) -> Contributions {
        let columns: Vec<Vec<f64>> = (0..self.words.len()).map(column).collect();
        (0..self.tokens.len()).map(|token| columns.iter().map(|column| column[token]).collect()).collect()
    }

    /// SCAN's attention of words to tokens.
    fn words_to_tokens(&self) -> Contributions {
        let norms: Vec<f64> = self.cosines.iter().map(|row| leaky_norm(row.iter())).collect();
        self.by_word(|word| {
            let logit = |token: usize| Some(WORD_TEMPERATURE * leaky_relu(self.cosines[token][word]) / norms[token]);
            let weights = softmax(self.tokens.len(), logit);
            let norm = attended_norm(&weights, &self.tokens);
            weights.iter().zip(&self.cosines).map(|(weight, cosines)| weight * cosines[word] / norm).collect()
        })
    }

    /// SCAN's attention of tokens to words.
    fn tokens_to_words(&self) -> Contributions {
        let [tokens, words] = [self.tokens.len(), self.words.len()];
        let norms: Vec<f64> = (0..words).map(|word| leaky_norm(self.cosines.iter().map(|row| &row[word]))).collect();
        let row = |cosines: &Vec<f64>| -> Vec<f64> {
            let logit = |word: usize| Some(TOKEN_TEMPERATURE * leaky_relu(cosines[word]) / norms[word]);
            let weights = softmax(words, logit);
            let share = words as f64 / tokens as f64 / attended_norm(&weights, &self.words);
            weights.iter().zip(cosines).map(|(weight, cosine)| share * weight * cosine).collect()
        };
        self.cosines.iter().map(row).collect()
    }

    /// The best token of each word, with `value` of their cosine.
    fn best_tokens(&self, value: fn(f64) -> f64) -> Contributions {
        self.by_word(|word| {
            let (token, cosine) = best(self.tokens.len(), &|token| self.cosines[token][word]);
            let mut column = vec![0.0; self.tokens.len()];
            column[token] = value(cosine);
            column
        })
    }

    /// The best word of each token.
    fn best_words(&self) -> Contributions {
        let mut parts = self.zeros();
        for (row, cosines) in parts.iter_mut().zip(&self.cosines) {
            let (word, cosine) = best(cosines.len(), &|word| cosines[word]);
            row[word] = leaky_relu(cosine) * self.words.len() as f64 / self.tokens.len() as f64;
        }
        parts
    }

    /// The log-sum-exp over the words' best tokens, divided by the share of each word in the sum.
    fn shares_of_words(&self) -> Contributions {
        let mut parts = self.zeros();
        let words = self.words.len();
        let found: Vec<(usize, f64)> =
            (0..words).map(|word| best(self.tokens.len(), &|token| self.cosines[token][word])).collect();
        let shares = softmax(words, |word| Some(found[word].1 / LSE_TEMPERATURE));
        let similarity = found.iter().map(|(_, cosine)| (cosine / LSE_TEMPERATURE).exp()).sum::<f64>().ln();
        for (word, &(token, _)) in found.iter().enumerate() {
            parts[token][word] = shares[word] * similarity * words as f64;
        }
        parts
    }
}

fn half_sum(mut parts: Contributions, other: &Contributions) -> Contributions {
    for (row, other) in parts.iter_mut().zip(other) {
        row.iter_mut().zip(other).for_each(|(value, other)| *value = 0.5 * (*value + other));
    }
    parts
}

/// Norm of the leaky cosines.
fn leaky_norm<'a>(cosines: impl Iterator<Item = &'a f64>) -> f64 {
    cosines.map(|&cosine| leaky_relu(cosine).powi(2)).sum::<f64>().sqrt() + SOFT_NORM_EPS
}

/// Norm of the sum of `vectors` times `weights`.
fn attended_norm(weights: &[f64], vectors: &[Vec<f64>]) -> f64 {
    let sum = weighted(weights, vectors);
    dot(&sum, &sum).sqrt().max(NORM_EPS)
}

#[cfg(test)]
mod tests {
    use laps_model::heads::Pooling;

    use super::*;
    use crate::similarity::{
        CaptionMatrix, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine as _, tests::samples::SampleGenerator,
    };

    const HEADS: [HeadConfig; 6] = [
        HeadConfig::ScanT2i,
        HeadConfig::ScanI2t,
        HeadConfig::ScanAll,
        HeadConfig::MaxMean,
        HeadConfig::Chan { aggregation: ChanAggregation::Mean },
        HeadConfig::Chan { aggregation: ChanAggregation::Lse },
    ];

    fn pair(sizes: &HeadSizes, words: usize, seed: u64) -> (Array, Array) {
        let mut random = SampleGenerator(seed);
        let image = random.embeddings([1, sizes.tokens, sizes.width], 0.7);
        let image = Array::new(&[sizes.tokens, sizes.width], image.into_values()).unwrap();
        (image, random.captions(&[words], sizes.width, 0.7).remove(0))
    }

    #[test]
    fn parts_add_up_to_the_similarity_of_the_engine() {
        for (number, head) in HEADS.into_iter().enumerate() {
            for has_class_token in [true, false] {
                let tokens = 16 + usize::from(has_class_token);
                let sizes = HeadSizes { tokens, has_class_token, width: 24, word_width: 24 };
                let (image, caption) = pair(&sizes, 3 + number, 40 + number as u64);
                let explanation = explain_head(&head, &sizes, &image, &caption).unwrap();
                let read = |_: &laps_model::params::Parameter| panic!("the head has no parameters");
                let options = EngineOptions { threads: 1, ..EngineOptions::default() };
                let engine = HeadEngine::with_sizes(head, sizes, read, options, SimdLevel::detect()).unwrap();
                let images = Array::new(&[1, tokens, 24], image.values().to_vec()).unwrap();
                let captions = CaptionMatrix::from_arrays(std::slice::from_ref(&caption), 24).unwrap();
                let similarity = f64::from(engine.similarities(&images, &captions).unwrap().values()[0]);
                // The engine is in single precision; `lse` divides its f32 cosines by 0.1.
                assert!((explanation.similarity - similarity).abs() < 2e-6 * similarity.abs().max(1.0), "{head}");
                let sum: f64 = explanation.patches.iter().map(|patch| patch.contribution).sum();
                // Rounding of double precision.
                assert!((explanation.class_token + sum - explanation.similarity).abs() < 1e-12, "{head}");
                assert_eq!((explanation.patches.len(), explanation.tokens.len()), (16, tokens));
                let of_words: f64 = explanation.words.iter().map(|word| word.similarity).sum();
                assert!((of_words / (3 + number) as f64 - explanation.similarity).abs() < 1e-12, "{head}");
                for word in &explanation.words {
                    assert!((word.patches.iter().sum::<f64>() - word.spatial_similarity).abs() < 1e-12, "{head}");
                    assert!(matches!(explanation.tokens[word.spatial_token].kind, TokenKind::Patch(_)), "{head}");
                }
                assert_eq!(explanation.class_token != 0.0, has_class_token && !is_assignment(&head, &explanation));
            }
        }
    }

    /// Whether each word chose a patch, so that the class token adds nothing.
    fn is_assignment(head: &HeadConfig, explanation: &Explanation) -> bool {
        matches!(head, HeadConfig::Chan { .. }) && explanation.words.iter().all(|word| word.token == word.spatial_token)
    }

    /// A patch that is the only word's direction, among patches at right angles to it, takes all of the similarity.
    #[test]
    fn map_of_a_word_points_at_its_patch() {
        let sizes = HeadSizes { tokens: 4, has_class_token: false, width: 4, word_width: 4 };
        let one = |row: usize| (0..4).map(move |column| if column == row { 2.0 } else { 0.0 });
        let image = Array::new(&[4, 4], (0..4).flat_map(one).collect()).unwrap();
        let caption = Array::new(&[1, 4], one(2).collect()).unwrap();
        for head in HEADS {
            let explanation = explain_head(&head, &sizes, &image, &caption).unwrap();
            let word = &explanation.words[0];
            assert_eq!((word.token, word.spatial_token), (2, 2), "{head}");
            assert!(word.patches[2] > 0.0 && [0, 1, 3].iter().all(|&patch| word.patches[patch] == 0.0), "{head}");
        }
    }

    #[test]
    fn heads_without_parts_and_foreign_embeddings_are_rejected() {
        let sizes = HeadSizes { tokens: 4, has_class_token: false, width: 8, word_width: 8 };
        let (image, caption) = pair(&sizes, 3, 5);
        for head in [HeadConfig::Vsepp { pooling: Pooling::Mean }, HeadConfig::Sgr { sim_dim: 8, steps: 1 }] {
            assert!(explain_head(&head, &sizes, &image, &caption).is_err(), "{head}");
        }
        let larger = HeadSizes { tokens: 5, ..sizes };
        assert!(explain_head(&HeadConfig::MaxMean, &larger, &image, &caption).is_err());
    }
}
