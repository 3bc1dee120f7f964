//! A training run: what is asked for, and what comes out. `laps-torch` trains.

use std::path::PathBuf;

use laps_data::LongCaptions;
use laps_hub::registry::{DataPaths, Entry, Validation};
use laps_model::encoder::Device;

use crate::ProcessGroup;

/// Model, data and output folder of a training run.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// The entry, with overrides applied.
    pub entry: Entry,
    /// Paths of its data.
    pub paths: DataPaths,
    /// The run folder.
    pub out: PathBuf,
    /// Device.
    pub device: Device,
    /// Threads that decode images and score.
    pub threads: usize,
    /// Treatment of captions that are longer than the text encoder has positions.
    pub long_captions: LongCaptions,
    /// Whether to resume the run in the folder.
    pub resume: Resume,
    /// The process group; None for a single process.
    pub group: Option<ProcessGroup>,
    /// Version and commit of the program. The ranks of a group have to have the same.
    pub version: String,
    /// Initial weights.
    pub start: InitialWeights,
}

impl TrainRequest {
    /// The split on which the best epoch is selected.
    pub fn select_on(&self) -> &str {
        match self.entry.train.select_on {
            Validation::Dev => &self.entry.data.dev,
            Validation::Test => &self.entry.data.test,
        }
    }
}

/// Whether to resume a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Start a new run.
    #[default]
    Never,
    /// Resume a run whose state exists.
    Always,
    /// Resume if the folder holds a state, and start a new run otherwise.
    Auto,
}

/// Files of initial weights. Parameters that none of them holds are initialised from the seed.
#[derive(Clone, Debug, Default)]
pub struct InitialWeights {
    /// A whole checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The image encoder, under Hugging Face's names.
    pub image_backbone: Option<PathBuf>,
    /// The text encoder, under Hugging Face's names.
    pub text_backbone: Option<PathBuf>,
}

/// The outcome of a training run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// Steps over all epochs.
    pub steps: u64,
    /// Best sum of recalls, and its epoch, counted from 0.
    pub best: Option<(f64, usize)>,
    /// Hash of the effective configuration.
    pub configuration: String,
    /// Steps with a non-finite loss or gradient, which were skipped.
    pub non_finite: u64,
    /// Captions of both splits that were truncated.
    pub truncated_captions: usize,
}
