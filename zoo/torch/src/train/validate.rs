//! Validation: recalls of the current weights.

use std::ops::Range;

use super::{
    Weights, distribution::share, features::BackboneFeatures, learner::unpad, objective::CaptionPadding,
    split::TokenizedSplit,
};
use crate::{Result, Torch, distributed::Collective};
use laps_align::{
    CaptionImages, Directions, PartialRanks, Rank, Ranks, Scores, TieRule,
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
use tch::{Kind, Tensor as Tch};

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
    let counts = shares.iter().map(|share| batches[share.clone()].iter().flatten().map(|&caption| rows(caption)).sum());
    let words = gather_rows(group, weights, own, width, &counts.collect::<Vec<_>>())?;
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
            for batch in Loader::start(split.files[own].to_vec(), preprocessing, options)? {
                score(&model.image.features(&upload(&batch?.pixels)?)?)?;
            }
        }
    }
    let ranks = rank_parts(group, weights, &similarities, &split.images, &shares)?;
    Ok(Directions::of(&ranks, TieRule::HEADLINE))
}

/// Ranks of a similarity matrix of which each rank of the group holds the rows of its share of the images.
fn rank_parts(
    group: &Collective,
    weights: &Weights,
    similarities: &[f32],
    captions: &CaptionImages,
    shares: &[Range<usize>],
) -> Result<Ranks> {
    let own = &shares[group.rank()];
    // A rank has no images if there are more ranks than encoder batches.
    let scores = match own.is_empty() {
        true => None,
        false => Some(Scores::new(similarities, own.len(), captions.captions())?),
    };
    let own_scores = scores.as_ref().map(|scores| PartialRanks::own_scores(scores, captions, own.start));
    let counts: Vec<usize> = shares.iter().map(|share| captions.of_images(share.clone()).len()).collect();
    let own_scores = gather_rows(group, weights, own_scores.transpose()?.unwrap_or_default(), 1, &counts)?;
    let part = scores.map(|scores| PartialRanks::new(&scores, captions, own.start, own_scores)).transpose()?;

    let device = weights.device().device();
    let counts = match &part {
        Some(part) => Tch::f_from_slice(&part.counts().map(i64::from).collect::<Vec<_>>())?,
        None => Tch::f_zeros(3 * captions.captions() as i64, (Kind::Int64, tch::Device::Cpu))?,
    };
    let counts = counts.f_to_device(device)?;
    group.all_reduce(std::slice::from_ref(&counts))?;
    let numbers = |tensor: &Tch| -> Result<Vec<u32>> {
        let numbers = Vec::<i64>::try_from(&tensor.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
        Ok(numbers.into_iter().map(|number| number as u32).collect())
    };
    let t2i = PartialRanks::t2i(&numbers(&counts)?);

    let i2t = part.map(|part| part.i2t).unwrap_or_default();
    let i2t = i2t.iter().flat_map(|rank| [rank.optimistic, rank.later_first, rank.pessimistic].map(i64::from));
    let i2t = Tch::f_from_slice(&i2t.collect::<Vec<_>>())?.f_reshape([-1, 3])?.f_to_device(device)?;
    let rows: Vec<usize> = shares.iter().map(Range::len).collect();
    let i2t = numbers(&group.all_gather_rows(&i2t, &rows)?)?;
    let (i2t, _) = i2t.as_chunks::<3>();
    let rank = |&[optimistic, later_first, pessimistic]: &[u32; 3]| Rank { optimistic, later_first, pessimistic };
    Ok(Ranks { i2t: i2t.iter().map(rank).collect(), t2i })
}

/// Rows of `width` values of all ranks, of which rank `i` has `rows[i]`.
fn gather_rows(group: &Collective, weights: &Weights, own: Vec<f32>, width: usize, rows: &[usize]) -> Result<Vec<f32>> {
    if group.world_size() == 1 {
        return Ok(own);
    }
    let own = Torch::upload(&Array::new(&[own.len() / width.max(1), width], own)?, &weights.device())?;
    Ok(Torch::new(group.all_gather_rows(&own.0, rows)?).download()?.values().to_vec())
}
