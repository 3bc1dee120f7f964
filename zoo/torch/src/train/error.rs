//! Errors of a training run.

use std::path::PathBuf;

/// An error of a training run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data does not fill one batch.
    #[error(
        "the data does not fill one batch\n  expected: at least {batch_size} captions\n  found: {samples} captions"
    )]
    TooFewSamples {
        /// Captions of the training split.
        samples: usize,
        /// Captions of one batch.
        batch_size: usize,
    },
    /// The folder holds a run of another configuration.
    #[error(
        "`{}` holds a run of another configuration\n  expected: {expected}\n  found: {found}", folder.display()
    )]
    OtherRun {
        /// The run folder.
        folder: PathBuf,
        /// Hash of the requested configuration.
        expected: String,
        /// Hash of the configuration in the folder.
        found: String,
    },
    /// The folder holds a run, and resuming was not requested.
    #[error("`{}` holds a run already", folder.display())]
    Occupied {
        /// The run folder.
        folder: PathBuf,
    },
    /// The folder holds other files.
    #[error(
        "`{}` is not empty and does not hold a run\n  expected: a new or empty folder, or a run\n  found: `{found}`",
        folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// A file in it.
        found: String,
    },
    /// There is no state to resume from.
    #[error("`{}` holds no state to resume from", folder.display())]
    NoState {
        /// The run folder.
        folder: PathBuf,
    },
    /// The state cannot be read or written.
    #[error("the state `{}` cannot be used: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The features of frozen backbones cannot be read or written.
    #[error("the cached features `{}` cannot be used: {reason}", path.display())]
    Features {
        /// The file or folder.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The run was stopped, and its state is saved.
    #[error("training was interrupted after step {step} and saved in `{}`", folder.display())]
    Interrupted {
        /// Finished steps.
        step: u64,
        /// The run folder.
        folder: PathBuf,
    },
    /// The run was stopped before its first step.
    #[error("training was interrupted before its first step; the run in `{}` is unchanged", folder.display())]
    NotStarted {
        /// The run folder.
        folder: PathBuf,
    },
}

impl TrainError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooFewSamples { samples, .. } => format!("set `train.batch_size` to {samples} or less"),
            Self::OtherRun { .. } | Self::Foreign { .. } => "use another output folder".to_owned(),
            Self::Occupied { .. } => "resume the run, or use another output folder".to_owned(),
            Self::NoState { .. } => "start the run without resuming".to_owned(),
            Self::Interrupted { .. } => "resume the run to continue".to_owned(),
            Self::NotStarted { .. } => "start the run again".to_owned(),
            Self::Features { .. } => "`LAPS_ZOO_CACHE` names another cache folder".to_owned(),
            Self::State { .. } => return None,
        })
    }
}
