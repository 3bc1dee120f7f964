//! The provenance of a result: program, model, data, engine and machine.

use std::{borrow::Cow, path::Path};

use laps::EngineUsed;
use laps_files::{ExpectedDigest, digest_file};
use laps_hub::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, machine::Machine};

/// Everything that produced a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this program.
    pub version: Cow<'static, str>,
    /// The commit it was built from, if known.
    pub commit: Option<Cow<'static, str>>,
    /// The model.
    #[serde(flatten)]
    pub model: EvaluatedModel,
    /// Engine of the similarities: the instruction set of the CPU engine, libtorch and its device, or the file that holds
    /// them.
    pub similarity: String,
    /// The machine.
    pub machine: Machine,
    /// Always `None`: nothing in an evaluation is random. The seed of a bootstrap is stored with its intervals.
    pub seed: Option<u64>,
}

/// The model that was evaluated. In JSON its fields are those of [`Provenance`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EvaluatedModel {
    /// The model of an entry, which laps-zoo ran.
    Entry(Box<EntryUsed>),
    /// A model that another program ran.
    Foreign {
        /// The files of the other program.
        foreign: ForeignModel,
    },
}

/// An entry, and what it was evaluated with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryUsed {
    /// SHA-256 of the effective configuration of the entry.
    pub config_sha256: String,
    /// The checkpoint.
    pub checkpoint: CheckpointUsed,
    /// The data.
    pub data: DataUsed,
    /// Engine of the embeddings.
    pub engine: EngineUsed,
}

/// Similarities or embeddings that another program computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignModel {
    /// The files that were read.
    pub files: Vec<SourceFile>,
    /// The head that compared the embeddings; `None` for similarities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadUsed>,
}

/// A head, which laps-zoo ran on foreign embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadUsed {
    /// Type and options.
    pub name: String,
    /// The file of its parameters, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<SourceFile>,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name, without its folder.
    pub file: String,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

impl Provenance {
    /// A result of `model` by this program on this machine.
    pub(crate) fn here(model: EvaluatedModel, similarity: String) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: crate::commit().map(Into::into),
            model,
            similarity,
            machine: Machine::here(),
            seed: None,
        }
    }

    /// The entry; `None` for a foreign model.
    pub fn entry(&self) -> Option<&EntryUsed> {
        match &self.model {
            EvaluatedModel::Entry(entry) => Some(entry),
            EvaluatedModel::Foreign { .. } => None,
        }
    }

    /// The foreign model; `None` for an entry.
    pub fn foreign(&self) -> Option<&ForeignModel> {
        match &self.model {
            EvaluatedModel::Entry(_) => None,
            EvaluatedModel::Foreign { foreign } => Some(foreign),
        }
    }
}

impl ForeignModel {
    /// The files and the head, with the first digits of each hash.
    pub fn describe(&self) -> String {
        let files: Vec<String> = self.files.iter().map(SourceFile::to_string).collect();
        let mut text = format!("foreign model, not run by laps-zoo; {}", files.join(", "));
        if let Some(HeadUsed { name, checkpoint }) = &self.head {
            text += &format!("; head {name}");
            text += &checkpoint.as_ref().map_or_else(String::new, |file| format!(" with {file}"));
        }
        text
    }
}

impl SourceFile {
    /// Hashes the file `path`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn of(path: &Path) -> Result<Self> {
        let digest = digest_file(path, &ExpectedDigest::default());
        let sha256 = digest.map_err(|source| Error::Read { path: path.to_owned(), source })?.sha256;
        Ok(Self { file: file_name(path), sha256 })
    }

    /// Hashes a checkpoint, which can be several files.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        Ok(Self { file: file_name(checkpoint.path()), sha256: checkpoint.sha256()? })
    }
}

impl std::fmt::Display for SourceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (sha256 {})", self.file, short(&self.sha256))
    }
}

/// The first 12 digits of a hash, which are enough to identify a file.
pub(crate) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| laps_files::path_to_text(name.as_ref())).unwrap_or_default()
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
        let SourceFile { file, sha256 } = SourceFile::of_checkpoint(checkpoint)?;
        Ok(Self {
            file,
            sha256,
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
    /// Captions that were truncated to the positions of the text encoder.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_captions: usize,
    /// Captions of the split that are left out because their image has more than the entry uses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_captions: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
