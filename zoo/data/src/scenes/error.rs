//! Errors of drawn scenes.

use std::path::PathBuf;

use super::DrawnSplit;
use crate::image::ImageError;

/// Scenes cannot be drawn or written.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// There are fewer distinct scenes.
    #[error("split `{split}` cannot be drawn\n  expected: at most {most} scenes\n  found: {wanted}")]
    TooMany {
        /// The split.
        split: DrawnSplit,
        /// Number of distinct scenes.
        most: usize,
        /// Number of requested scenes.
        wanted: usize,
    },
    /// The folder has files that were not drawn and would be lost.
    #[error("`{}` cannot be replaced\n  expected: an empty folder, or scenes drawn before\n  found: `{found}`", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Name of such a file.
        found: String,
    },
    /// A picture could not be encoded.
    #[error("a picture cannot be encoded")]
    Encode(#[from] ImageError),
}

impl SceneError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooMany { .. } => Some("lower the number of scenes under `drawn` in the entry".to_owned()),
            Self::Foreign { .. } => Some("name another folder".to_owned()),
            Self::Encode(_) => None,
        }
    }
}
