//! Validation: recalls of the current weights.

use std::{ops::Range, rc::Rc};

use super::{Weights, features::BackboneFeatures, split::TokenizedSplit};
use crate::{Result, Torch, distributed::Collective};
use laps::{MatrixParts, RankGroup, share};
use laps_align::{
    Directions, Scores, TieRule,
    similarity::{
        AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, HeadEngine, SimilarityEngine,
    },
};
use laps_data::{Loader, LoaderOptions, image::Preprocessing};
use laps_hub::registry::TrainPrecision;
use laps_model::{
    array::Array,
    heads::{Head, HeadConfig, HeadSizes},
    params::{Mode, ParamPath, Parameter},
    tensor::{DeviceTensor, Tensor},
};

/// Images or captions of an encoder batch.
const BATCH_SIZE: usize = 32;

/// Encodes a split in f32 and evaluates it with the exact engine, without folds. The ranks of `group` share the captions
/// and images in the encoder batches of a single process, so the recalls do not depend on the number of ranks.
pub(super) fn validate(
    weights: &Weights,
    split: &TokenizedSplit,
    features: Option<&BackboneFeatures>,
    threads: usize,
    group: &Collective,
) -> Result<Directions> {
    let _guard = tch::no_grad_guard();
    let model = weights.model(TrainPrecision::F32, Mode::Evaluation)?;
    let config = AlignmentConfig::of(weights.config());
    let upload = |array: &Array| Torch::upload(array, &weights.device());

    let batches = split.batches_by_length(BATCH_SIZE);
    let shares: Vec<_> = (0..group.world_size()).map(|rank| share(batches.len(), rank, group.world_size())).collect();
    let mut own = Vec::new();
    for batch in &batches[shares[group.rank()].clone()] {
        let (words, padded_length) = match features {
            Some(features) => (upload(&features.words(batch.iter().copied())?.0)?, None),
            None => {
                let (input_ids, mask) = split.pad(batch)?;
                let padded = model.text.features(&upload(&input_ids)?, &upload(&mask)?)?;
                let [_, length, width] = padded.sizes()?;
                (padded.reshape(&[length.times(batch.len()), width])?, Some(length.fixed()?))
            }
        };
        let words = model.text.project(&words)?.download()?;
        let mut start = 0;
        for &caption in batch {
            let count = split.input_ids[caption].len();
            own.extend_from_slice(&words.values()[start * config.width..(start + count) * config.width]);
            start += padded_length.unwrap_or(count);
        }
    }
    let words = |share: &Range<usize>| -> usize {
        batches[share.clone()].iter().flatten().map(|&caption| split.input_ids[caption].len()).sum()
    };
    let counts: Vec<usize> = shares.iter().map(|share| words(share) * config.width).collect();
    let words = group.all_gather_f32(&own, &counts)?;
    let mut embedded = vec![0..0; split.input_ids.len()];
    let mut start = 0;
    for &caption in batches.iter().flatten() {
        let end = start + split.input_ids[caption].len();
        embedded[caption] = start..end;
        start = end;
    }
    // Only heads without parameters are trained.
    let no_parameter = |parameter: &Parameter| Array::new(&parameter.shape, Vec::new());
    let head = match weights.config().head {
        HeadConfig::Laps => None,
        head => {
            let read = move |parameter: Parameter| no_parameter(&parameter);
            Some(Head::<Array>::new(&head, &HeadSizes::of(weights.config()), &ParamPath::root(Rc::new(read)))?)
        }
    };
    let mut captions = CaptionMatrix::new(config.width);
    for Range { start, end } in embedded {
        let (count, words) = (end - start, &words[start * config.width..end * config.width]);
        match &head {
            Some(head) if head.pools() => {
                let mask = Array::new(&[1, count], vec![1.0; count])?;
                let words = Array::new(&[1, count, config.width], words.to_vec())?;
                let vector = head.caption_vectors(&words, &mask).unwrap_or(Ok(words))?;
                captions.push(vector.dims(), vector.values())?;
            }
            _ => captions.push(&[count, config.width], words)?,
        }
    }

    let options = EngineOptions { threads, ..EngineOptions::default() };
    let engine: Box<dyn SimilarityEngine> = match &head {
        None => {
            let aggregation = AggregationWeights::load(|name| Ok(weights.array(name)?))?;
            Box::new(Engine::new(config, &aggregation, options)?)
        }
        Some(_) => Box::new(HeadEngine::new(weights.config(), no_parameter, options)?),
    };
    let images = split.files.len();
    let shares = (0..group.world_size()).map(|rank| {
        let batches = share(images.div_ceil(BATCH_SIZE), rank, group.world_size());
        (batches.start * BATCH_SIZE).min(images)..(batches.end * BATCH_SIZE).min(images)
    });
    let shares: Vec<Range<usize>> = shares.collect();
    let own = shares[group.rank()].clone();
    let mut similarities = Vec::with_capacity(own.len() * captions.len());
    let mut score = |features: &Torch| -> Result<()> {
        let mut images = model.image.project(features)?.download()?;
        if let Some(vectors) = head.as_ref().and_then(|head| head.image_vectors(&images)) {
            let vectors = vectors?;
            images = vectors.reshape(&[vectors.dims()[0].into(), 1.into(), config.width.into()])?;
        }
        similarities.extend_from_slice(engine.similarities(&images, &captions)?.values());
        Ok(())
    };
    match features {
        Some(features) => {
            for start in own.clone().step_by(BATCH_SIZE) {
                let end = (start + BATCH_SIZE).min(own.end);
                score(&upload(&features.images(start..end)?)?)?;
            }
        }
        None => {
            let preprocessing = Preprocessing::of(&weights.config().image);
            let options = LoaderOptions { batch_size: BATCH_SIZE, threads, prefetch: 2 };
            for batch in Loader::start(split.files[own.clone()].to_vec(), preprocessing, options)? {
                score(&model.image.features(&upload(&batch?.pixels)?)?)?;
            }
        }
    }
    // A rank has no images if there are more ranks than encoder batches.
    let own = match own.is_empty() {
        true => None,
        false => Some(Scores::new(&similarities, own.len(), captions.len())?),
    };
    let ranks = MatrixParts { group, own, shares: &shares, captions: &split.images }.ranks(0..images)?;
    Ok(Directions::of(&ranks, TieRule::HEADLINE))
}
