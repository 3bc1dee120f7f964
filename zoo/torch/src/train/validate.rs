//! Validation: recalls of the current weights.

use std::ops::Range;

use super::{Weights, features::BackboneFeatures, learner::unpad, objective::CaptionPadding, split::TokenizedSplit};
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
    heads::HeadConfig,
    params::Mode,
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
    let config = weights.config();
    let pools = config.head.pools();
    // Of a caption: its words, or one vector.
    let width = if pools { config.embed_size } else { config.embedding_widths()[1] };
    let rows = |caption: usize| if pools { 1 } else { split.input_ids[caption].len() };
    let upload = |array: &Array| Torch::upload(array, &weights.device());

    let batches = split.batches_by_length(BATCH_SIZE);
    let shares: Vec<_> = (0..group.world_size()).map(|rank| share(batches.len(), rank, group.world_size())).collect();
    let mut own = Vec::new();
    for batch in &batches[shares[group.rank()].clone()] {
        let lengths: Vec<usize> = batch.iter().map(|&caption| split.input_ids[caption].len()).collect();
        let words = match features {
            Some(features) => upload(&features.words(batch.iter().copied())?.0)?,
            None => {
                let (input_ids, mask) = split.pad(batch)?;
                unpad(&model.text.features(&upload(&input_ids)?, &upload(&mask)?)?, &lengths)?
            }
        };
        let mut words = model.text.project(&words)?;
        if pools {
            let padding = CaptionPadding::new(&lengths, &words.0)?;
            let mask = Torch::new(padding.mask()?);
            let padded = Torch::new(padding.pad(&words.0)?);
            words = model.head.caption_features(&padded, &mask, Some(&mask))?.features;
        }
        own.extend_from_slice(words.download()?.values());
    }
    let size = |share: &Range<usize>| -> usize {
        batches[share.clone()].iter().flatten().map(|&caption| rows(caption) * width).sum()
    };
    let words = group.all_gather_f32(&own, &shares.iter().map(size).collect::<Vec<_>>())?;
    let mut embedded = vec![0..0; split.input_ids.len()];
    let mut start = 0;
    for &caption in batches.iter().flatten() {
        let end = start + rows(caption);
        embedded[caption] = start..end;
        start = end;
    }
    let mut captions = CaptionMatrix::new(width);
    for Range { start, end } in embedded {
        captions.push(&[end - start, width], &words[start * width..end * width])?;
    }

    let options = EngineOptions { threads, ..EngineOptions::default() };
    let read = |name: &str| weights.array(name).map_err(laps_model::Error::weights);
    let engine: Box<dyn SimilarityEngine> = match config.head {
        HeadConfig::Laps => {
            let aggregation = AggregationWeights::load(|name| Ok(read(name)?))?;
            Box::new(Engine::new(AlignmentConfig::of(config), &aggregation, options)?)
        }
        _ => Box::new(HeadEngine::new(config, |parameter| read(&parameter.name), options)?),
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
        let mut images = model.image.project(features)?;
        if let Some(vectors) = model.head.image_vectors(&images) {
            let vectors = vectors?;
            let [count, width] = vectors.sizes()?;
            images = vectors.reshape(&[count, 1.into(), width])?;
        }
        similarities.extend_from_slice(engine.similarities(&images.download()?, &captions)?.values());
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
