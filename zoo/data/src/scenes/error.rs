//! What can go wrong here.

use std::path::PathBuf;

use super::Split;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// There are not that many different scenes.
    #[error("split `{split}` can not be drawn\n  expected: at most {most} scenes\n  found: {wanted}")]
    TooMany {
        /// The split.
        split: Split,
        /// Scenes that there are.
        most: usize,
        /// Scenes that were asked for.
        wanted: usize,
    },
    /// The folder holds something that was not drawn, and that would be lost.
    #[error("`{}` can not be replaced\n  expected: an empty folder, or scenes drawn before\n  found: `{found}`", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// A picture could not be encoded.
    #[error("a picture can not be encoded")]
    Encode(#[from] image::ImageError),
}

impl SceneError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooMany { .. } => Some("lower the number of scenes under `drawn` in the entry".to_owned()),
            Self::Foreign { .. } => Some("name another folder".to_owned()),
            Self::Encode(_) => None,
        }
    }
}
