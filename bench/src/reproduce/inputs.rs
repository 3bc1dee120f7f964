//! Reads and checks the inputs before anything is encoded.

use std::{rc::Rc, time::Instant};

use laps::open_checkpoint;
use laps_align::{CaptionImages, Protocol};
use laps_data::{Preflight, Split, preflight};
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{DataPaths, Entry},
};
use laps_model::models;

use super::{CheckpointUsed, ReproduceRequest, log::RunLog};
use crate::Result;

/// The captions of a split: text, token ids, and the image of each.
pub(super) struct SplitTexts {
    pub(super) split: Split,
    pub(super) tokens: Vec<Vec<u32>>,
    pub(super) images: CaptionImages,
}

pub(super) fn read_texts(request: &ReproduceRequest, paths: &DataPaths) -> Result<SplitTexts> {
    let Entry { model, data, .. } = &request.entry;
    let mut split = Split::open(&paths.captions, request.split.as_deref().unwrap_or(&data.test))?;
    if let Some(limit) = request.limit {
        split = split.limit(limit);
    }
    let tokenizer = request.entry.tokenizer(paths)?;
    let tokens = split.tokenize(&tokenizer, model.text.max_position_embeddings)?;
    let images = CaptionImages::new(split.images().len(), split.image_of())?;
    Ok(SplitTexts { split, tokens, images })
}

/// The protocols that fit the split. A protocol that does not fit is an error, unless the split is limited and another
/// protocol fits.
pub(super) fn protocols(request: &ReproduceRequest, texts: &SplitTexts, log: &mut RunLog<'_>) -> Result<Vec<Protocol>> {
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
    log: &mut RunLog<'_>,
) -> Result<(Rc<Checkpoint>, CheckpointUsed)> {
    let began = Instant::now();
    let (checkpoint, note) = open_checkpoint(&request.entry, request.checkpoint.as_deref())?;
    log.notes.extend(note.clone());
    let used = CheckpointUsed::new(&checkpoint, note)?;
    log.add("check checkpoint", models::parameters(&request.entry.model)?.len(), "tensors", began.elapsed());
    Ok((Rc::new(checkpoint), used))
}

/// Checks that every image can be decoded, and hashes the data.
pub(super) fn check_images(
    request: &ReproduceRequest,
    split: &Split,
    paths: &DataPaths,
    log: &mut RunLog<'_>,
) -> Result<Preflight> {
    let images = split.images().len();
    let checked = log.run("check images", images, "images", |progress| {
        preflight(split, &paths.images, request.threads, |_| progress.advance(1))
    })?;
    log.notes.extend(checked.damaged.iter().map(|damage| {
        format!("image `{}` is damaged and was decoded partially: {}", damage.file.image.id, damage.warning)
    }));
    Ok(checked)
}
