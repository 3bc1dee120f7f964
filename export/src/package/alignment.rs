//! The alignment parameters and the vocabulary of a package, which search needs besides the encoders.

use std::path::Path;

use laps_align::similarity::AlignmentConfig;
use laps_data::{TOKENIZER_CONFIG, Tokenizer, TokenizerConfig, Vocabulary};
use laps_hub::checkpoint::Checkpoint;
use laps_model::models::{self, config::ModelConfig};
use safetensors::{Dtype, tensor::TensorView};

use super::{AlignmentFile, FileEntry, files::write_file};
use crate::{Error, Result};

/// File of the alignment parameters. The similarity engine reads them; it computes the same as the graph `score`, faster.
pub(super) const ALIGNMENT_FILE: &str = "alignment.safetensors";

/// Writes the alignment parameters of a checkpoint to `folder`.
pub(super) fn write_alignment(config: &ModelConfig, checkpoint: &Checkpoint, folder: &Path) -> Result<AlignmentFile> {
    let mut tensors = Vec::new();
    for parameter in models::parameters(config)? {
        if parameter.name.starts_with("cross_net.aggr_net.") {
            let values = checkpoint.read(&parameter.name).map_err(laps_hub::Error::from)?;
            let bytes: Vec<u8> = values.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((parameter.name, parameter.shape, bytes));
        }
    }
    let failed = |error: safetensors::SafeTensorError| Error::io("write", folder.join(ALIGNMENT_FILE), error);
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?)));
    let bytes = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None).map_err(failed)?;
    let file = write_file(folder, ALIGNMENT_FILE, &bytes)?;
    Ok(AlignmentFile { file, sizes: AlignmentConfig::of(config) })
}

/// Writes a vocabulary to `folder`, if it has the size that the model expects, and its settings beside it if there
/// are any.
pub(super) fn write_vocabulary(
    config: &ModelConfig,
    vocabulary: &Vocabulary,
    folder: &Path,
) -> Result<(FileEntry, Option<FileEntry>)> {
    let tokenizer = Tokenizer::new(vocabulary).map_err(laps_data::Error::from)?;
    tokenizer.check_fits(config.text.vocab_size).map_err(laps_data::Error::from)?;
    let file = write_file(folder, vocabulary.file_name(), &vocabulary.bytes)?;
    if vocabulary.config == TokenizerConfig::default() {
        return Ok((file, None));
    }
    let failed = |error| Error::io("write", folder.join(TOKENIZER_CONFIG), error);
    let settings = serde_json::to_string_pretty(&vocabulary.config).map_err(failed)?;
    Ok((file, Some(write_file(folder, TOKENIZER_CONFIG, format!("{settings}\n").as_bytes())?)))
}
