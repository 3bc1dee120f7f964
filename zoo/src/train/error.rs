//! What can go wrong with a run, apart from its model and its data.

use std::path::PathBuf;

/// An error of this module.
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
}

impl TrainError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Batch { samples, .. } => Some(format!("`--set train.batch_size={samples}` or less")),
        }
    }
}
