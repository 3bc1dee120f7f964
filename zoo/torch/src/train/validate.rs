//! Validation: recalls of the current weights.

use super::{Weights, features::BackboneFeatures, split::TokenizedSplit};
use crate::{Result, Torch};
use laps_align::{
    Directions, Protocol, Scores, evaluate,
    similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions},
};
use laps_data::{Loader, LoaderOptions, image::Preprocessing};
use laps_hub::registry::TrainPrecision;
use laps_model::{
    array::Array,
    params::Mode,
    tensor::{DeviceTensor, Tensor},
};

/// Images or captions of an encoder batch.
const BATCH_SIZE: usize = 32;

/// Encodes a split in f32 and evaluates it with the exact engine, without folds.
pub(super) fn validate(
    weights: &Weights,
    split: &TokenizedSplit,
    features: Option<&BackboneFeatures>,
    threads: usize,
) -> Result<Directions> {
    let _guard = tch::no_grad_guard();
    let model = weights.model(TrainPrecision::F32, Mode::Evaluation)?;
    let config = AlignmentConfig::of(weights.config());
    let upload = |array: &Array| Torch::upload(array, &weights.device());

    let mut embedded: Vec<Option<Array>> = vec![None; split.input_ids.len()];
    for batch in split.batches_by_length(BATCH_SIZE) {
        let (words, padded_length) = match features {
            Some(features) => (upload(&features.words(batch.iter().copied())?.0)?, None),
            None => {
                let (input_ids, mask) = split.pad(&batch)?;
                let padded = model.text.features(&upload(&input_ids)?, &upload(&mask)?)?;
                let [_, length, width] = padded.sizes()?;
                (padded.reshape(&[length.times(batch.len()), width])?, Some(length.fixed()?))
            }
        };
        let words = model.text.project(&words)?.download()?;
        let mut start = 0;
        for caption in batch {
            let count = split.input_ids[caption].len();
            let values = words.values()[start * config.width..(start + count) * config.width].to_vec();
            embedded[caption] = Some(Array::new(&[count, config.width], values)?);
            start += padded_length.unwrap_or(count);
        }
    }
    let mut captions = CaptionMatrix::new(config.width);
    for words in embedded.into_iter().flatten() {
        captions.push(words.dims(), words.values())?;
    }

    let aggregation = AggregationWeights::load(|name| Ok(weights.array(name)?))?;
    let engine = Engine::new(config, &aggregation, EngineOptions { threads, ..EngineOptions::default() })?;
    let mut similarities = Vec::with_capacity(split.files.len() * captions.len());
    let mut score = |features: &Torch| -> Result<()> {
        let images = model.image.project(features)?.download()?;
        similarities.extend_from_slice(engine.similarities(&images, &captions)?.values());
        Ok(())
    };
    match features {
        Some(features) => {
            for start in (0..split.files.len()).step_by(BATCH_SIZE) {
                let end = (start + BATCH_SIZE).min(split.files.len());
                score(&upload(&features.images(start..end)?)?)?;
            }
        }
        None => {
            let preprocessing = Preprocessing::imagenet(weights.config().image.image_size());
            let options = LoaderOptions { batch_size: BATCH_SIZE, threads, prefetch: 2 };
            for batch in Loader::start(split.files.clone(), preprocessing, options)? {
                score(&model.image.features(&upload(&batch?.pixels)?)?)?;
            }
        }
    }
    let scores = Scores::new(&similarities, split.files.len(), captions.len())?;
    Ok(evaluate(&scores, &split.images, Protocol::F30k)?.headline)
}
