//! What is read and checked before anything is encoded.

use std::{rc::Rc, time::Instant};

use laps::open_checkpoint;
use laps_align::{CaptionImages, Protocol};
use laps_data::{Preflight, Split, Tokenizer, preflight};
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{DataPaths, Entry},
};
use laps_model::models;

use super::{CheckpointUsed, Request, log::Log};
use crate::Result;

/// The captions of a split in every form that is needed.
pub(super) struct Texts {
    pub(super) split: Split,
    pub(super) tokens: Vec<Vec<u32>>,
    pub(super) images: CaptionImages,
}

pub(super) fn read_texts(request: &Request, paths: &DataPaths) -> Result<Texts> {
    let Entry { model, data, .. } = &request.entry;
    let mut split = Split::open(&paths.captions, request.split.as_deref().unwrap_or(&data.test))?;
    if let Some(limit) = request.limit {
        split = split.limit(limit);
    }
    let tokenizer = Tokenizer::open(&paths.vocab)?;
    tokenizer.check_fits(model.text.vocab_size)?;
    let tokens = tokenizer.encode_all(split.captions(), model.text.max_position_embeddings)?;
    let images = CaptionImages::new(split.images().len(), split.image_of())?;
    Ok(Texts { split, tokens, images })
}

/// The protocols that the split can be evaluated by. One that does not fit is an error, unless the split was cut on
/// purpose and another one fits.
pub(super) fn protocols(request: &Request, texts: &Texts, log: &mut Log<'_>) -> Result<Vec<Protocol>> {
    let mut fitting = Vec::new();
    let mut refused = None;
    for &protocol in &request.entry.data.protocol {
        match protocol.fold_size(texts.images.images()) {
            Ok(_) => fitting.push(protocol),
            Err(error) if request.limit.is_some() => {
                log.notes.push(format!(
                    "protocol `{protocol}` was left out: {} images are no whole folds",
                    texts.images.images()
                ));
                refused = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match refused {
        Some(error) if fitting.is_empty() => Err(error.into()),
        _ => Ok(fitting),
    }
}

/// Opens and checks the checkpoint that is asked for.
pub(super) fn read_checkpoint(request: &Request, log: &mut Log<'_>) -> Result<(Rc<Checkpoint>, CheckpointUsed)> {
    let began = Instant::now();
    let (checkpoint, note) = open_checkpoint(&request.entry, request.checkpoint.as_deref())?;
    log.notes.extend(note.clone());
    let used = CheckpointUsed::new(&checkpoint, note)?;
    log.add("check checkpoint", models::parameters(&request.entry.model)?.len(), "tensors", began.elapsed());
    Ok((Rc::new(checkpoint), used))
}

/// Sees that every image can be decoded.
pub(super) fn look_at_images(
    request: &Request,
    split: &Split,
    paths: &DataPaths,
    log: &mut Log<'_>,
) -> Result<Preflight> {
    let images = split.images().len();
    let seen = log.follow("check images", images, "images", |progress| {
        preflight(split, &paths.images, request.threads, |_| progress.advance(1))
    })?;
    log.notes.extend(seen.damaged.iter().map(|damage| {
        format!("image `{}` is damaged and was decoded as far as it goes: {}", damage.file.image.id, damage.warning)
    }));
    Ok(seen)
}
