//! The alignment of one image and one caption by its definition, in f64, from f32 inputs.

use laps_model::heads::Ablation;

use crate::similarity::{AggregationWeights, AlignmentConfig};

fn normalised(vector: &[f64]) -> Vec<f64> {
    let norm = dot(vector, vector).sqrt().max(1e-12);
    vector.iter().map(|value| value / norm).collect()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len()).map(|entry| rows.iter().map(|row| row[entry]).sum::<f64>() / rows.len() as f64).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.iter().map(|logit| (logit - largest).exp() / sum).collect()
}

fn weighted(rows: &[&Vec<f64>], weights: &[f64], width: usize) -> Vec<f64> {
    (0..width).map(|entry| rows.iter().zip(weights).map(|(row, weight)| row[entry] * weight).sum()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn rows(values: &[f32], width: usize) -> Vec<Vec<f64>> {
    values.chunks_exact(width).map(wide).collect()
}

/// Logits of one patch, one for each group.
fn logits(weights: &AggregationWeights, patch: &[f64]) -> Vec<f64> {
    let average = patch.iter().sum::<f64>() / patch.len() as f64;
    let variance = patch.iter().map(|value| (value - average).powi(2)).sum::<f64>() / patch.len() as f64;
    let [weight, bias] = [&weights.norm_weight, &weights.norm_bias].map(|array| wide(array.values()));
    let normed: Vec<f64> = patch
        .iter()
        .zip(weight.iter().zip(&bias))
        .map(|(value, (weight, bias))| (value - average) / (variance + 1e-5).sqrt() * weight + bias)
        .collect();
    let linear = |input: &[f64], weight: &[f32], bias: &[f32]| -> Vec<f64> {
        rows(weight, input.len()).iter().zip(bias).map(|(row, &bias)| dot(row, input) + f64::from(bias)).collect()
    };
    let hidden: Vec<f64> = linear(&normed, weights.hidden_weight.values(), weights.hidden_bias.values())
        .iter()
        .map(|x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())))
        .collect();
    let scale = f64::from(weights.scale.values()[0]);
    linear(&hidden, weights.group_weight.values(), weights.group_bias.values())
        .iter()
        .map(|logit| logit * scale)
        .collect()
}

/// An image and everything of it that does not depend on the caption.
pub(super) struct ReferenceImage {
    class: Vec<Vec<f64>>,
    patches: Vec<Vec<f64>>,
    logits: Vec<Vec<f64>>,
}

impl ReferenceImage {
    pub(super) fn new(config: &AlignmentConfig, weights: &AggregationWeights, tokens: &[f32]) -> Self {
        let mut class = rows(tokens, config.width);
        let patches = class.split_off(usize::from(config.has_class_token));
        let logits = patches.iter().map(|patch| logits(weights, patch)).collect();
        Self { class, patches, logits }
    }

    /// The similarity, and the difference between the scores of the last kept and the first dropped patch.
    pub(super) fn similarity(&self, config: &AlignmentConfig, words: &[f32]) -> (f64, f64) {
        self.ablated(config, None, words)
    }

    /// As [`similarity`](Self::similarity), for an ablation if there is one.
    pub(super) fn ablated(&self, config: &AlignmentConfig, ablation: Option<Ablation>, words: &[f32]) -> (f64, f64) {
        let width = config.width;
        let words = rows(words, width);
        let [image_mean, caption_mean] = [normalised(&mean(&self.patches)), normalised(&mean(&words))];
        let scores: Vec<f64> = self
            .patches
            .iter()
            .map(|patch| normalised(patch))
            .map(|patch| match ablation {
                Some(Ablation::WithoutLanguageContext) => dot(&image_mean, &patch),
                _ => dot(&image_mean, &patch) + dot(&caption_mean, &patch),
            })
            .collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&left, &right| scores[right].total_cmp(&scores[left]));
        let (kept, dropped) = order.split_at(config.kept);
        let gap = dropped.first().map_or(f64::INFINITY, |&first| scores[kept[kept.len() - 1]] - scores[first]);

        let chosen: Vec<&Vec<f64>> = kept.iter().map(|&patch| &self.patches[patch]).collect();
        let mut tokens = self.class.clone();
        match ablation {
            Some(Ablation::WithoutPatchSelection) => tokens.extend(self.patches.iter().cloned()),
            Some(Ablation::WithoutPatchCalibration) => tokens.extend(chosen.into_iter().cloned()),
            _ => {
                for group in 0..config.groups {
                    let logits: Vec<f64> = kept.iter().map(|&patch| self.logits[patch][group]).collect();
                    tokens.push(weighted(&chosen, &softmax(&logits), width));
                }
            }
        }
        if !matches!(ablation, Some(Ablation::WithoutPatchSelection | Ablation::WithoutRedundantFusion)) {
            let rest: Vec<&Vec<f64>> = dropped.iter().map(|&patch| &self.patches[patch]).collect();
            let rest_scores: Vec<f64> = dropped.iter().map(|&patch| scores[patch]).collect();
            tokens.push(weighted(&rest, &softmax(&rest_scores), width));
        }

        let words: Vec<Vec<f64>> = words.iter().map(|word| normalised(word)).collect();
        let tokens: Vec<Vec<f64>> = tokens.iter().map(|token| normalised(token)).collect();
        let cosines: Vec<Vec<f64>> = tokens
            .iter()
            .map(|token| words.iter().map(|word| dot(token, word)).map(|x| x.max(0.1 * x)).collect())
            .collect();
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
        let over_words: f64 =
            (0..words.len()).map(|word| largest(&mut cosines.iter().map(|row| row[word]))).sum::<f64>();
        let over_tokens: f64 = cosines.iter().map(|row| largest(&mut row.iter().copied())).sum::<f64>();
        let [of_words, of_tokens] = [over_words / words.len() as f64, over_tokens / tokens.len() as f64];
        let similarity = match ablation {
            Some(Ablation::PatchToWordOnly) => of_tokens,
            Some(Ablation::WordToPatchOnly) => of_words,
            Some(Ablation::ScanAlignment) => attended_similarity(&tokens, &words, &cosines),
            _ => of_words + of_tokens,
        };
        (similarity, gap)
    }
}

/// Mean over words of the cosine with the sum of the tokens, weighted by the attention of the word. `cosines` `(tokens, words)`
/// are those of the leaky ReLU.
fn attended_similarity(tokens: &[Vec<f64>], words: &[Vec<f64>], cosines: &[Vec<f64>]) -> f64 {
    let of_word = |(index, word): (usize, &Vec<f64>)| {
        let logit = |row: &Vec<f64>| 9.0 * row[index] / (dot(row, row).sqrt() + 1e-8);
        let weights = softmax(&cosines.iter().map(logit).collect::<Vec<f64>>());
        dot(word, &normalised(&weighted(&tokens.iter().collect::<Vec<_>>(), &weights, word.len())))
    };
    words.iter().enumerate().map(of_word).sum::<f64>() / words.len() as f64
}
