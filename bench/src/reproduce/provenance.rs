//! What produced a result.

use std::borrow::Cow;

use laps::EngineUsed;
use laps_hub::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::{Result, machine::Machine};

/// Everything that produced a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this program.
    pub version: Cow<'static, str>,
    /// The commit it was built from, if known.
    pub commit: Option<Cow<'static, str>>,
    /// SHA-256 of the effective configuration of the entry.
    pub config_sha256: String,
    /// The checkpoint.
    pub checkpoint: CheckpointUsed,
    /// The data.
    pub data: DataUsed,
    /// Engine of the embeddings.
    pub engine: EngineUsed,
    /// Engine of the similarities: the instruction set of the CPU engine, or libtorch and its device.
    pub similarity: String,
    /// The machine.
    pub machine: Machine,
    /// Always `None`: nothing in an evaluation is random.
    pub seed: Option<u64>,
}

/// The checkpoint that was evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointUsed {
    /// Name of the file, without its folder.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Format of the file.
    pub format: String,
    /// Epoch in which it was written, starting at 0.
    pub epoch: Option<u64>,
    /// rSum that the training recorded for it.
    pub best_rsum: Option<f64>,
    /// Description of an embedded checkpoint.
    pub note: Option<String>,
}

impl CheckpointUsed {
    pub(super) fn new(checkpoint: &Checkpoint, note: Option<String>) -> Result<Self> {
        let training = checkpoint.training();
        Ok(Self {
            file: checkpoint.path().file_name().map(|name| laps_files::path_to_text(name.as_ref())).unwrap_or_default(),
            sha256: checkpoint.sha256()?,
            format: checkpoint.format().to_string(),
            epoch: training.epoch,
            best_rsum: training.best_rsum,
            note,
        })
    }
}

/// The images and captions that were evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataUsed {
    /// Hash of captions and images, see [`laps_data::hash_data`].
    pub sha256: String,
    /// Total size of the image files, in bytes.
    pub image_bytes: u64,
    /// Ids of images that could be decoded only partially.
    pub damaged: Vec<String>,
}
