//! Random weights, pixels and tokens.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use laps_hub::registry::Entry;
use laps_model::{array::Array, models, params_init::init_parameters, random::SplitMix64};
use safetensors::{Dtype, tensor::TensorView};

use crate::{Error, Result, alignment::CaptionLengths};

/// Writes a checkpoint with random weights to `folder`, for entries without one: the speed of an encoder does not
/// depend on the values of its weights.
///
/// # Errors
/// [`Error::Write`].
pub fn random_checkpoint(entry: &Entry, seed: u64, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(format!("{}.safetensors", entry.name));
    let write_error = |source: Box<dyn std::error::Error + Send + Sync>| Error::Write { path: path.clone(), source };
    let tensors = init_parameters(&models::parameters(&entry.model)?, seed)?;
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, array)| {
            let bytes = array.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.as_str(), array.dims(), bytes)
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| write_error(error.into()))?;
    safetensors::serialize_to_file(views, None::<HashMap<String, String>>, &path)
        .map_err(|error| write_error(error.into()))?;
    Ok(path)
}

/// Pixels from a standard normal distribution, `(batch, 3, size, size)`.
pub(super) fn pixels(entry: &Entry, batch: usize, seed: u64) -> Result<Array> {
    let size = entry.model.image.image_size();
    let mut random = SplitMix64::named(seed, "pixels");
    let values = (0..batch * 3 * size * size).map(|_| random.normal() as f32).collect();
    Ok(Array::new(&[batch, 3, size, size], values)?)
}

/// Token ids of `batch` captions whose lengths are distributed as in Flickr30K, up to the model's longest sequence.
pub(super) fn tokens(entry: &Entry, batch: usize, seed: u64) -> Vec<Vec<u32>> {
    let text = &entry.model.text;
    let mut random = SplitMix64::named(seed, "tokens");
    // Token id 0 is padding.
    let mut token_id = |_| 1 + random.below(text.vocab_size.saturating_sub(1)) as u32;
    let lengths = CaptionLengths::new(seed).take(batch).map(|length| length.min(text.max_position_embeddings));
    lengths.map(|length| (0..length).map(&mut token_id).collect()).collect()
}
