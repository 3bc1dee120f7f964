//! What can go wrong with a run.

use std::path::PathBuf;

/// A run that can not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Not even one batch.
    #[error(
        "the data does not fill one batch\n  expected: at least {batch_size} captions\n  found: {samples} captions"
    )]
    Batch {
        /// Captions of the training split.
        samples: usize,
        /// Captions of a batch.
        batch_size: usize,
    },
    /// The folder holds a run of another configuration.
    #[error(
        "`{}` holds a run of another configuration\n  expected: {expected}\n  found: {found}", folder.display()
    )]
    OtherRun {
        /// The run folder.
        folder: PathBuf,
        /// Hash of the configuration that was asked for.
        expected: String,
        /// Hash of that of the folder.
        found: String,
    },
    /// The folder holds a run, and it was not asked to go on.
    #[error("`{}` holds a run already", folder.display())]
    Occupied {
        /// The run folder.
        folder: PathBuf,
    },
    /// The folder holds files that are no run.
    #[error("`{}` is not empty and holds no run\n  expected: no folder, an empty one, or a run\n  found: `{found}`", folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// A file in it.
        found: String,
    },
    /// There is nothing to go on from.
    #[error("`{}` holds no state to resume from", folder.display())]
    NoState {
        /// The run folder.
        folder: PathBuf,
    },
    /// The state can not be used.
    #[error("the state `{}` can not be used: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The run was told to stop; its state is saved.
    #[error("training was interrupted after step {step} and saved in `{}`", folder.display())]
    Interrupted {
        /// Steps that are done.
        step: u64,
        /// The run folder.
        folder: PathBuf,
    },
    /// The run was told to stop before its first step.
    #[error("training was interrupted before its first step; the run in `{}` is as it was", folder.display())]
    NotBegun {
        /// The run folder.
        folder: PathBuf,
    },
}

impl TrainError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Batch { samples, .. } => format!("`--set train.batch_size={samples}` or less"),
            Self::OtherRun { .. } | Self::Foreign { .. } => "use another folder as --out".to_owned(),
            Self::Occupied { .. } => "go on with `--resume`, or use another folder as --out".to_owned(),
            Self::NoState { .. } => "leave `--resume` out to begin".to_owned(),
            Self::Interrupted { .. } => "go on with the same command and `--resume`".to_owned(),
            Self::NotBegun { .. } => "the same command does it all".to_owned(),
            Self::State { .. } => return None,
        })
    }
}
