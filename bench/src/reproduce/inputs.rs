//! Reads and checks the inputs before anything is encoded.

use std::{rc::Rc, time::Instant};

use laps::open_checkpoint;
use laps_align::{CaptionImages, Protocol};
use laps_data::{DataError, DataHash, Split, check_images, hash_data};
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{DataPaths, Entry},
};
use laps_model::models;

use super::{CheckpointUsed, ReproduceRequest, log::StageLog};
use crate::{Error, Result};

/// The captions of a split: text, token ids, and the image of each.
pub(super) struct SplitTexts {
    pub(super) split: Split,
    pub(super) tokens: Vec<Vec<u32>>,
    /// Captions that were truncated.
    pub(super) truncated: usize,
    pub(super) images: CaptionImages,
}

pub(super) fn read_texts(request: &ReproduceRequest, paths: &DataPaths) -> Result<SplitTexts> {
    let Entry { model, data, .. } = &request.entry;
    let mut split = Split::open(&paths.captions, request.split.as_deref().unwrap_or(&data.test))?;
    if let Some(limit) = request.limit {
        split = split.limit(limit);
    }
    let split = request.caption_order.rewrite(split);
    let tokenizer = request.entry.tokenizer(paths)?.with_long_captions(request.long_captions);
    let written = split.tokenize(&tokenizer, model.text.max_position_embeddings);
    let written = written.map_err(|error| all_faults(error.into(), request, &split, paths))?;
    let truncated = tokenizer.truncated();
    let sources = request.caption_order.sources(split.images().len(), split.image_of());
    let tokens = sources.into_iter().map(|source| written[source].clone()).collect();
    let images = CaptionImages::new(split.images().len(), split.image_of())?;
    Ok(SplitTexts { split, tokens, truncated, images })
}

/// The protocols that fit the split. A protocol that does not fit is an error, unless the split is limited and another
/// protocol fits.
pub(super) fn protocols(
    request: &ReproduceRequest,
    texts: &SplitTexts,
    log: &mut StageLog<'_>,
) -> Result<Vec<Protocol>> {
    let mut fitting = Vec::new();
    let mut mismatch = None;
    for &protocol in &request.entry.data.protocol {
        match protocol.fold_size(texts.images.images()) {
            Ok(_) => fitting.push(protocol),
            Err(error) if request.limit.is_some() => {
                log.notes.push(format!(
                    "protocol `{protocol}` was skipped: {} images cannot be divided into its folds",
                    texts.images.images()
                ));
                mismatch = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match mismatch {
        Some(error) if fitting.is_empty() => Err(error.into()),
        _ => Ok(fitting),
    }
}

/// Opens and checks the checkpoint of the request.
pub(super) fn read_checkpoint(
    request: &ReproduceRequest,
    log: &mut StageLog<'_>,
) -> Result<(Rc<Checkpoint>, CheckpointUsed)> {
    let began = Instant::now();
    let (checkpoint, note) = open_checkpoint(&request.entry, request.checkpoint.as_deref())?;
    log.notes.extend(note.clone());
    log.notes.extend(checkpoint.notes());
    let used = CheckpointUsed::new(&checkpoint, note)?;
    log.add("check checkpoint", models::parameters(&request.entry.model)?.len(), "tensors", began.elapsed());
    Ok((Rc::new(checkpoint), used))
}

/// Hashes the captions and images. Reads every image file without decoding it: images are decoded once, when they are
/// encoded.
///
/// # Errors
/// All images that cannot be used, if one cannot be read.
pub(super) fn hash_images(
    request: &ReproduceRequest,
    split: &Split,
    paths: &DataPaths,
    log: &mut StageLog<'_>,
) -> Result<DataHash> {
    let images = split.images().len();
    let hashed = log.run("hash images", images, "images", |progress| {
        hash_data(split, &paths.images, request.threads, || progress.advance(1))
    });
    hashed.map_err(|error| all_faults(error.into(), request, split, paths))
}

/// The error that lists every image that cannot be used, and the captions of `first`, which names the faults found so far.
/// Other errors stay.
pub(super) fn all_faults(first: Error, request: &ReproduceRequest, split: &Split, paths: &DataPaths) -> Error {
    let Error::Laps(laps::Error::Data(laps_data::Error::Data(DataError::Image(_) | DataError::Unusable(_)))) = &first
    else {
        return first;
    };
    match check_images(&split.image_files(&paths.images), request.threads, || ()) {
        Err(DataError::Unusable(mut all)) => {
            if let Error::Laps(laps::Error::Data(laps_data::Error::Data(DataError::Unusable(found)))) = first {
                (all.captions, all.caption_faults) = (found.captions, found.caption_faults);
            }
            DataError::Unusable(all).into()
        }
        Err(error) => error.into(),
        Ok(_) => first,
    }
}
