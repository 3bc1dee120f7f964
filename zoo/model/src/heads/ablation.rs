//! LAPS's head with one part changed: the ablations of the paper's Table 4, as its public code allows to read them.
//!
//! | ablation | change |
//! |---|---|
//! | `without_patch_selection` | all tokens, class token included, are compared with the words: no groups and no fused patch |
//! | `without_language_context` | patches are selected by their cosine with the mean patch alone |
//! | `without_patch_calibration` | the kept patches themselves are compared instead of groups of them |
//! | `without_redundant_fusion` | there is no fused patch |
//! | `scan_alignment` | words attend to the merged tokens as in SCAN, instead of both maxima |
//! | `patch_to_word_only` | only the mean over tokens of their best word |
//! | `word_to_patch_only` | only the mean over words of their best token |
//!
//! The paper does not publish the code of these rows; what each one leaves out follows its name, and is our choice.

use super::{Ablation, ItemFeatures, LEAKY_SLOPE, MASK_LOGIT, NORM_EPS, attention, mean_word};
use crate::{
    Error, Result,
    dim::Dim,
    models::alignment::{Aggregation, PairSimilarity, fuse, groups, hidden_width},
    params::ParamPath,
    tensor::Tensor,
};

/// The head.
pub struct AblatedAlignment<T> {
    ablation: Ablation,
    /// None without groups.
    aggregation: Option<Aggregation<T>>,
    selection: PairSimilarity,
}

impl<T> AblatedAlignment<T> {
    /// `path` has `aggr_net`, if patches are aggregated.
    pub(super) fn new(
        ablation: Ablation,
        selection: PairSimilarity,
        groups: usize,
        width: usize,
        path: &ParamPath<T>,
    ) -> Result<Self> {
        let aggregation = match ablation {
            Ablation::WithoutPatchSelection | Ablation::WithoutPatchCalibration => None,
            _ => Some(Aggregation::new(width, hidden_width(width), groups, &path.sub("aggr_net"))?),
        };
        Ok(Self { ablation, aggregation, selection })
    }
}

impl<T: Tensor> AblatedAlignment<T> {
    /// The tokens, and the logits of the aggregation.
    pub(super) fn image_features(&self, tokens: &T) -> Result<ItemFeatures<T>> {
        let logits = self.aggregation.as_ref().map(|network| network.forward(&self.selection.patches(tokens)?));
        Ok(ItemFeatures { features: tokens.clone(), pooled: logits.transpose()? })
    }

    /// Similarities `(images, captions)`.
    pub(super) fn compare(&self, images: &ItemFeatures<T>, words: &T, mask: &T) -> Result<T> {
        let tokens = &images.features;
        let [count, token_count, width] = tokens.sizes()?;
        let [captions, _, _] = words.sizes()?;
        let one: Dim = 1.into();
        let unit_words = words.normalize(NORM_EPS)?;
        let across = unit_words.permute(&[0, 2, 1])?;
        let shared = |tokens: &T, count_of: Dim| tokens.reshape(&[count, one, count_of, width]);
        if self.ablation == Ablation::WithoutPatchSelection {
            let cosines = shared(&tokens.normalize(NORM_EPS)?, token_count)?.matmul(&across)?;
            return self.both_directions(&cosines, None, mask);
        }

        let patches = self.selection.patches(tokens)?;
        let mut mean = mean_word(words, mask)?;
        if self.ablation == Ablation::WithoutLanguageContext {
            // The cosines with the zero vector are 0.
            mean = mean.affine(0.0, 0.0)?;
        }
        let (kept, scores) = self.selection.select(&patches, &mean)?;
        let class_token = match self.selection.has_class_token {
            true => {
                let first = shared(&tokens.narrow(1, 0, 1)?, one)?;
                Some(first.expand(&[count, captions, one, width])?)
            }
            false => None,
        };
        let fused = match self.ablation {
            Ablation::WithoutRedundantFusion => None,
            _ => Some(fuse(&patches, &kept, &scores)?.reshape(&[count, captions, one, width])?),
        };
        if self.ablation == Ablation::WithoutPatchCalibration {
            let [_, patch_count, _] = patches.sizes()?;
            let always = kept.narrow(2, 0, 1)?.affine(0.0, 1.0)?;
            let of_patches = shared(&patches.normalize(NORM_EPS)?, patch_count)?.matmul(&across)?;
            let others = |token: &Option<T>| token.as_ref().map(|token| token.normalize(NORM_EPS)?.matmul(&across));
            let (of_class, of_fused) = (others(&class_token).transpose()?, others(&fused).transpose()?);
            let cosines: Vec<&T> = of_class.iter().chain([&of_patches]).chain(&of_fused).collect();
            let present: Vec<&T> =
                of_class.iter().map(|_| &always).chain([&kept]).chain(of_fused.iter().map(|_| &always)).collect();
            return self.both_directions(&T::concat(&cosines, 2)?, Some(&T::concat(&present, 2)?), mask);
        }

        let Some(logits) = &images.pooled else {
            let (expected, found) = ("logits of the aggregation".to_owned(), "none".to_owned());
            return Err(Error::Operation { operation: "alignment", expected, found });
        };
        let groups = groups(&patches, logits, &kept)?;
        let merged: Vec<&T> = class_token.iter().chain([&groups]).chain(&fused).collect();
        let merged = T::concat(&merged, 2)?.normalize(NORM_EPS)?;
        let cosines = merged.matmul(&across)?;
        if self.ablation != Ablation::ScanAlignment {
            return self.both_directions(&cosines, None, mask);
        }
        let weights = attention::words_to_tokens(&cosines.permute(&[0, 1, 3, 2])?, mask)?;
        let attended = weights.matmul(&merged)?.normalize(NORM_EPS)?;
        super::mean_over_words(&attended.mul(&unit_words)?.sum(3)?, mask)
    }

    /// Maxima of the cosines `(images, captions, tokens, words)`. `present` `(images, captions, tokens)` says which tokens
    /// there are.
    fn both_directions(&self, cosines: &T, present: Option<&T>, mask: &T) -> Result<T> {
        let cosines = cosines.leaky_relu(LEAKY_SLOPE)?;
        let [images, captions, tokens, words] = cosines.sizes()?;
        let one: Dim = 1.into();
        let of_words = || {
            let of_present = match present {
                Some(present) => {
                    let absent = present.affine(MASK_LOGIT, -MASK_LOGIT)?;
                    cosines.add(&absent.reshape(&[images, captions, tokens, one])?)?
                }
                None => cosines.clone(),
            };
            super::mean_over_words(&of_present.max(2)?.reshape(&[images, captions, words, one])?, mask)
        };
        let of_tokens = || {
            let absent = mask.affine(MASK_LOGIT, -MASK_LOGIT)?.reshape(&[captions, one, words])?;
            let best = cosines.add(&absent)?.max(3)?.reshape(&[images, captions, tokens])?;
            match present {
                Some(present) => best.mul(present)?.sum(2)?.div(&present.sum(2)?)?.reshape(&[images, captions]),
                None => best.mean(2)?.reshape(&[images, captions]),
            }
        };
        match self.ablation {
            Ablation::PatchToWordOnly => of_tokens(),
            Ablation::WordToPatchOnly => of_words(),
            _ => of_words()?.add(&of_tokens()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, rc::Rc};

    use serde_json::json;

    use super::super::{Ablation, Head, HeadConfig};
    use crate::{
        array::Array,
        models::config::ModelConfig,
        params::{ParamPath, Parameter},
        params_init::init_parameters,
        random::SplitMix64,
    };

    const LENGTHS: [usize; 3] = [4, 1, 3];
    const LONGEST: usize = 4;
    const WIDTH: usize = 8;

    fn model(has_class_token: bool, ablation: Ablation) -> ModelConfig {
        let image = match has_class_token {
            true => json!({
                "model_type": "vit", "image_size": 24, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 16, "layer_norm_eps": 1e-6,
            }),
            false => json!({
                "model_type": "swin", "image_size": 24, "patch_size": 4, "embed_dim": 4, "depths": [1, 1],
                "num_heads": [1, 2], "window_size": 3, "mlp_ratio": 2.0, "layer_norm_eps": 1e-5,
            }),
        };
        let text = json!({
            "model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 8, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        });
        let model = json!({ "image": image, "text": text, "embed_size": 8, "sparse_ratio": 0.5, "aggr_ratio": 0.5 });
        let mut model: ModelConfig = serde_json::from_value(model).unwrap();
        model.head = HeadConfig::LapsAblation { ablation };
        model.check().unwrap();
        model
    }

    fn normal(name: &str, shape: &[usize]) -> Array {
        let mut random = SplitMix64::named(5, name);
        Array::new(shape, (0..shape.iter().product()).map(|_| random.normal() as f32).collect()).unwrap()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn unit(vector: &[f64]) -> Vec<f64> {
        let norm = dot(vector, vector).sqrt().max(1e-12);
        vector.iter().map(|value| value / norm).collect()
    }

    /// Weighted sum of vectors, with the softmax of `logits` as weights.
    fn softmax_sum(logits: &[f64], vectors: &[&Vec<f64>]) -> Vec<f64> {
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        (0..vectors[0].len())
            .map(|axis| logits.iter().zip(vectors).map(|(logit, vector)| logit.exp() / total * vector[axis]).sum())
            .collect()
    }

    fn mean(vectors: &[Vec<f64>]) -> Vec<f64> {
        (0..vectors[0].len()).map(|axis| vectors.iter().map(|v| v[axis]).sum::<f64>() / vectors.len() as f64).collect()
    }

    fn average(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = values.len() as f64;
        values.sum::<f64>() / count
    }

    /// One pair in f64, step by step. `logits` are those of each patch.
    fn pair(
        model: &ModelConfig,
        ablation: Ablation,
        tokens: &[Vec<f64>],
        words: &[Vec<f64>],
        logits: &[Vec<f64>],
    ) -> f64 {
        let (class, patches) = tokens.split_at(usize::from(model.image.has_class_token()));
        let (image, text) = (unit(&mean(patches)), unit(&mean(words)));
        let score = |patch: &Vec<f64>| {
            let patch = unit(patch);
            let context = if ablation == Ablation::WithoutLanguageContext { 0.0 } else { dot(&text, &patch) };
            dot(&image, &patch) + context
        };
        let mut order: Vec<usize> = (0..patches.len()).collect();
        order.sort_by(|&a, &b| score(&patches[b]).total_cmp(&score(&patches[a])));
        let (kept, dropped) = order.split_at(model.kept());
        let mut visual = class.to_vec();
        match ablation {
            Ablation::WithoutPatchSelection => visual.extend_from_slice(patches),
            Ablation::WithoutPatchCalibration => visual.extend(kept.iter().map(|&patch| patches[patch].clone())),
            _ => {
                let vectors: Vec<&Vec<f64>> = kept.iter().map(|&patch| &patches[patch]).collect();
                for group in 0..model.groups() {
                    let logits: Vec<f64> = kept.iter().map(|&patch| logits[patch][group]).collect();
                    visual.push(softmax_sum(&logits, &vectors));
                }
            }
        }
        if !matches!(ablation, Ablation::WithoutPatchSelection | Ablation::WithoutRedundantFusion) {
            let scores: Vec<f64> = dropped.iter().map(|&patch| score(&patches[patch])).collect();
            visual.push(softmax_sum(&scores, &dropped.iter().map(|&patch| &patches[patch]).collect::<Vec<_>>()));
        }
        let visual: Vec<Vec<f64>> = visual.iter().map(|vector| unit(vector)).collect();
        let words: Vec<Vec<f64>> = words.iter().map(|word| unit(word)).collect();
        let leaky_relu = |cosine: f64| cosine.max(0.1 * cosine);
        let cosine = |token: &Vec<f64>, word: &Vec<f64>| leaky_relu(dot(token, word));
        let best = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
        let of_words = average(words.iter().map(|word| best(&mut visual.iter().map(|token| cosine(token, word)))));
        let of_tokens = average(visual.iter().map(|token| best(&mut words.iter().map(|word| cosine(token, word)))));
        match ablation {
            Ablation::PatchToWordOnly => of_tokens,
            Ablation::WordToPatchOnly => of_words,
            Ablation::ScanAlignment => average(words.iter().map(|word| {
                let logit = |token: &Vec<f64>| {
                    let norm = words.iter().map(|word| cosine(token, word).powi(2)).sum::<f64>().sqrt();
                    9.0 * cosine(token, word) / (norm + 1e-8)
                };
                let logits: Vec<f64> = visual.iter().map(logit).collect();
                dot(word, &unit(&softmax_sum(&logits, &visual.iter().collect::<Vec<_>>())))
            })),
            _ => of_words + of_tokens,
        }
    }

    fn rows(values: &[f32]) -> Vec<Vec<f64>> {
        values.chunks(WIDTH).map(|row| row.iter().map(|&value| f64::from(value)).collect()).collect()
    }

    /// Every ablation with and without a class token against a plain loop in f64, and each one differs from the others.
    #[test]
    fn ablations_match_a_plain_loop() {
        for has_class_token in [true, false] {
            let mut seen = BTreeMap::new();
            for ablation in Ablation::ALL {
                let model = model(has_class_token, ablation);
                let read = |parameter: &Parameter| {
                    init_parameters(std::slice::from_ref(parameter), 3).map(|mut made| made.swap_remove(0).1)
                };
                let path = ParamPath::root(Rc::new(move |parameter: Parameter| read(&parameter)));
                let head = Head::<Array>::of(&model, &path).unwrap();
                let tokens = normal("tokens", &[2, 9 + usize::from(has_class_token), WIDTH]);
                let words = normal("words", &[3, LONGEST, WIDTH]);
                let mask =
                    LENGTHS.iter().flat_map(|&length| (0..LONGEST).map(move |word| f32::from(u8::from(word < length))));
                let mask = Array::new(&[3, LONGEST], mask.collect()).unwrap();
                let features = head.image_features(&tokens).unwrap();
                let captions = head.caption_features(&words, &mask, None).unwrap();
                let found = head.compare(&features, &captions, &mask).unwrap();
                let logits = features.pooled.as_ref();
                for image in 0..2 {
                    let logits: Vec<Vec<f64>> = logits.map_or(Vec::new(), |logits| {
                        let logits = logits.rows(image..image + 1).unwrap();
                        logits
                            .values()
                            .chunks(model.groups())
                            .map(|row| row.iter().map(|&v| v.into()).collect())
                            .collect()
                    });
                    for (caption, length) in LENGTHS.into_iter().enumerate() {
                        let tokens = rows(tokens.rows(image..image + 1).unwrap().values());
                        let words = &rows(words.rows(caption..caption + 1).unwrap().values())[..length];
                        let expected = pair(&model, ablation, &tokens, words, &logits);
                        let found = f64::from(found.values()[image * LENGTHS.len() + caption]);
                        // f32 sums of 8 terms.
                        assert!((found - expected).abs() < 1e-5, "{ablation:?}: {found} and {expected}");
                    }
                }
                let bits: Vec<u32> = found.values().iter().map(|value| value.to_bits()).collect();
                assert_eq!(seen.insert(bits, ablation), None, "{ablation:?}");
            }
        }
    }
}
