//! The parameters of the head and the vocabulary of a package, which search needs besides the encoders.

use std::path::Path;

use laps_align::similarity::AlignmentConfig;
use laps_data::{TOKENIZER_CONFIG, Tokenizer, TokenizerConfig, Vocabulary};
use laps_hub::checkpoint::Checkpoint;
use laps_model::{
    heads::{Head, HeadSizes},
    models::{self, config::ModelConfig},
    params::{self, Parameter},
};
use safetensors::{Dtype, tensor::TensorView};

use super::{AlignmentFile, FileEntry, HeadFile, files::write_file};
use crate::{Error, Result};

/// File of the alignment parameters. The similarity engine reads them; it computes the same as the graph `score`, faster.
pub(super) const ALIGNMENT_FILE: &str = "alignment.safetensors";
/// File of the parameters of another head.
const HEAD_FILE: &str = "head.safetensors";

/// Writes the alignment parameters of a checkpoint to `folder`.
pub(super) fn write_alignment(config: &ModelConfig, checkpoint: &Checkpoint, folder: &Path) -> Result<AlignmentFile> {
    let mut parameters = models::parameters(config)?;
    parameters.retain(|parameter| parameter.name.starts_with("cross_net.aggr_net."));
    let file = write_parameters(parameters, checkpoint, folder, ALIGNMENT_FILE)?;
    Ok(AlignmentFile { file, sizes: AlignmentConfig::of(config) })
}

/// Writes the parameters of a head other than LAPS's to `folder`.
pub(super) fn write_head(config: &ModelConfig, checkpoint: &Checkpoint, folder: &Path) -> Result<HeadFile> {
    let parameters = params::list(|path| Head::of(config, path))?;
    let parameters = match parameters.is_empty() {
        true => None,
        false => Some(write_parameters(parameters, checkpoint, folder, HEAD_FILE)?),
    };
    let alignment = config.head.has_ratios().then(|| AlignmentConfig::of(config));
    Ok(HeadFile { sizes: HeadSizes::of(config), alignment, parameters })
}

fn write_parameters(
    parameters: Vec<Parameter>,
    checkpoint: &Checkpoint,
    folder: &Path,
    name: &str,
) -> Result<FileEntry> {
    let mut tensors = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let values = checkpoint.read(&parameter.name).map_err(laps_hub::Error::from)?;
        let bytes: Vec<u8> = values.values().iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((parameter.name, parameter.shape, bytes));
    }
    let failed =
        |error: safetensors::SafeTensorError| Error::io("write", folder.join(name), std::io::Error::other(error));
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?)));
    let bytes = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None).map_err(failed)?;
    write_file(folder, name, &bytes)
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
