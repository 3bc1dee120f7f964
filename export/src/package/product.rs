//! What a product needs beside the graphs of the encoders to search: the alignment's own parameters, and the vocabulary.

use std::path::{Path, PathBuf};

use laps_align::similarity::{AggregationWeights, AlignmentConfig};
use laps_data::Tokenizer;
use laps_hub::checkpoint::Checkpoint;
use laps_model::models;
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::{Manifest, Package, Request, manifest::FileEntry, write::write_file};
use crate::{Error, Result};

/// The alignment's parameters, for the similarity engine, which computes the same as the graph `score` without its cost.
const ALIGNMENT: &str = "alignment.safetensors";
const VOCABULARY: &str = "vocab.txt";

/// The alignment without a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignmentFile {
    /// The file: `cross_net.aggr_net.*` as safetensors.
    #[serde(flatten)]
    pub file: FileEntry,
    /// Its sizes.
    pub sizes: AlignmentConfig,
}

/// Writes both files to `folder`; the vocabulary if the request has one.
pub(super) fn write(request: &Request, folder: &Path, manifest: &mut Manifest) -> Result<()> {
    let Request { entry, checkpoint, vocabulary, .. } = request;
    let mut tensors = Vec::new();
    for parameter in models::parameters(&entry.model)? {
        if parameter.name.starts_with("cross_net.aggr_net.") {
            let values = checkpoint.read(&parameter.name).map_err(laps_hub::Error::from)?;
            let bytes: Vec<u8> = values.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((parameter.name, parameter.shape, bytes));
        }
    }
    let failed = |error: safetensors::SafeTensorError| Error::io("write", folder.join(ALIGNMENT), error);
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?)));
    let bytes = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None).map_err(failed)?;
    let file = write_file(folder, ALIGNMENT, &bytes)?;
    manifest.alignment = Some(AlignmentFile { file, sizes: AlignmentConfig::of(&entry.model) });
    if let Some(bytes) = vocabulary {
        let tokenizer = Tokenizer::read(Path::new(VOCABULARY), bytes.clone()).map_err(laps_data::Error::from)?;
        tokenizer.check_fits(entry.model.text.vocab_size).map_err(laps_data::Error::from)?;
        manifest.vocabulary = Some(write_file(folder, VOCABULARY, bytes)?);
    }
    Ok(())
}

impl Package {
    /// Sizes and parameters of the alignment.
    ///
    /// # Errors
    /// [`Error::Package`] for a folder without them.
    pub fn alignment(&self) -> Result<(AlignmentConfig, AggregationWeights)> {
        let Some(alignment) = &self.manifest.alignment else {
            return Err(Error::Package {
                path: self.folder.clone(),
                expected: format!("a file `{ALIGNMENT}`"),
                found: "none".to_owned(),
                hint: super::open::AGAIN,
            });
        };
        let checkpoint = Checkpoint::open(self.folder.join(&alignment.file.file)).map_err(laps_hub::Error::from)?;
        Ok((alignment.sizes, AggregationWeights::load(|name| Ok(checkpoint.read(name)?))?))
    }

    /// The vocabulary, if it was there when the folder was written.
    pub fn vocabulary(&self) -> Option<PathBuf> {
        self.manifest.vocabulary.as_ref().map(|vocabulary| self.folder.join(&vocabulary.file))
    }
}
