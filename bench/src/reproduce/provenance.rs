//! What produced a result.

use std::borrow::Cow;

use laps_hub::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};

use laps::EngineUsed;

use crate::{Result, machine::Machine};

/// Everything that a result rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this program.
    pub version: Cow<'static, str>,
    /// The commit it was built from, where that is known.
    pub commit: Option<Cow<'static, str>>,
    /// SHA-256 of the effective configuration of the entry.
    pub config_sha256: String,
    /// The checkpoint.
    pub checkpoint: CheckpointUsed,
    /// The data.
    pub data: DataUsed,
    /// What computed the embeddings.
    pub engine: EngineUsed,
    /// What computed the similarities: the instruction set of the engine on the processor, or libtorch and its device.
    pub similarity: String,
    /// The machine.
    pub machine: Machine,
    /// Nothing in an evaluation is random.
    pub seed: Option<u64>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointUsed {
    /// Name of the file, without its folder.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Its container.
    pub format: String,
    /// Epoch in which it was written, from 0.
    pub epoch: Option<u64>,
    /// The sum of recalls that the training recorded for it.
    pub best_rsum: Option<f64>,
    /// What an embedded checkpoint is.
    pub note: Option<String>,
}

impl CheckpointUsed {
    pub(super) fn new(checkpoint: &Checkpoint, note: Option<String>) -> Result<Self> {
        let training = checkpoint.training();
        Ok(Self {
            file: checkpoint.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            sha256: checkpoint.sha256()?,
            format: checkpoint.format().to_string(),
            epoch: training.epoch,
            best_rsum: training.best_rsum,
            note,
        })
    }
}

/// Images and captions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataUsed {
    /// Hash of captions and images, see [`laps_data::preflight`].
    pub sha256: String,
    /// Size of all image files in bytes.
    pub image_bytes: u64,
    /// Images that could be decoded in part only, by id.
    pub damaged: Vec<String>,
}
