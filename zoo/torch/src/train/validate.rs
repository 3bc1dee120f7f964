//! Recalls of the weights as they are.

use super::{Weights, features::Features, learner::pad_tokens, samples::Samples};
use crate::{Result, Torch};
use laps_align::{
    Directions, Protocol, Scores, evaluate,
    similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions},
};
use laps_data::{Loader, LoaderOptions, image::Preprocessing};
use laps_hub::registry::Precision;
use laps_model::{
    array::Array,
    params::Mode,
    tensor::{Eager, Tensor},
};

/// Images, and captions, that are encoded together.
const TOGETHER: usize = 32;

/// Encodes a split in f32 and evaluates it whole, with the exact engine.
pub(super) fn validate(
    weights: &Weights,
    samples: &Samples,
    features: Option<&Features>,
    threads: usize,
) -> Result<Directions> {
    let _guard = tch::no_grad_guard();
    let model = weights.model(Precision::F32, Mode::Evaluation)?;
    let config = AlignmentConfig::of(weights.config());
    let upload = |array: &Array| Torch::upload(array, &weights.device());

    let mut order: Vec<usize> = (0..samples.tokens.len()).collect();
    order.sort_by_key(|&caption| samples.tokens[caption].len());
    let mut embedded: Vec<Option<Array>> = vec![None; order.len()];
    for group in order.chunks(TOGETHER) {
        let (words, length) = match features {
            Some(features) => (upload(&features.words(group.iter().copied())?.0)?, None),
            None => {
                let rows: Vec<&[u32]> = group.iter().map(|&caption| samples.tokens[caption].as_slice()).collect();
                let (identifiers, mask) = pad_tokens(&rows)?;
                let padded = model.text.features(&upload(&identifiers)?, &upload(&mask)?)?;
                let [_, length, width] = padded.sizes()?;
                (padded.reshape(&[length.times(group.len()), width])?, Some(length.fixed()?))
            }
        };
        let words = model.text.project(&words)?.download()?;
        let mut start = 0;
        for &caption in group {
            let count = samples.tokens[caption].len();
            let values = words.values()[start * config.width..(start + count) * config.width].to_vec();
            embedded[caption] = Some(Array::new(&[count, config.width], values)?);
            start += length.unwrap_or(count);
        }
    }
    let mut captions = CaptionMatrix::new(config.width);
    for words in embedded.into_iter().flatten() {
        captions.push(words.dims(), words.values())?;
    }

    let aggregation = AggregationWeights::load(|name| Ok(weights.array(name)?))?;
    let engine = Engine::new(config, &aggregation, EngineOptions { threads, ..EngineOptions::default() })?;
    let mut similarities = Vec::with_capacity(samples.files.len() * captions.len());
    let mut score = |features: &Torch| -> Result<()> {
        let images = model.image.project(features)?.download()?;
        similarities.extend_from_slice(engine.similarities(&images, &captions)?.values());
        Ok(())
    };
    match features {
        Some(features) => {
            for start in (0..samples.files.len()).step_by(TOGETHER) {
                let end = (start + TOGETHER).min(samples.files.len());
                score(&upload(&features.images(start..end)?)?)?;
            }
        }
        None => {
            let preprocessing = Preprocessing::imagenet(weights.config().image.image_size());
            let options = LoaderOptions { batch: TOGETHER, threads, ahead: 2 };
            for batch in Loader::start(samples.files.clone(), preprocessing, options)? {
                score(&model.image.features(&upload(&batch?.pixels)?)?)?;
            }
        }
    }
    let scores = Scores::new(&similarities, samples.files.len(), captions.len())?;
    Ok(evaluate(&scores, &samples.images, Protocol::F30k)?.headline)
}
