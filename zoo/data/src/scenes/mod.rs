//! The drawn data set: scenes of coloured shapes in relations, with captions, in the layout of the LAPS files.
//!
//! It needs no download and has no licence restrictions. The same [`DrawnConfig`] gives the same bytes on every platform.
//! The scenes of a group differ in one attribute or relation, so only a model that aligns words with patches can
//! distinguish them: for a caption of `a small red circle to the left of a large blue square` there are pictures with a
//! red star, with a green circle, and with the square on the left.

mod captions;
mod error;
mod groups;
mod layout;
mod objects;
mod outline;
mod raster;
mod scene;
#[cfg(test)]
mod tests;
mod vocabulary;
mod write;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use error::SceneError;
pub use objects::{DrawnObject, objects};
pub use raster::PIXELS;
pub use vocabulary::vocabulary;
pub use write::{DrawOutcome, write};

/// Configuration of a drawn data set: `data.drawn` of an entry. The same numbers always give the same data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawnConfig {
    /// Random seed.
    pub seed: u64,
    /// Number of scenes of the train split.
    pub train: usize,
    /// Number of scenes of the dev split.
    pub dev: usize,
    /// Number of scenes of the test split.
    pub test: usize,
}

impl DrawnConfig {
    /// Number of scenes of a split.
    pub fn count(&self, split: DrawnSplit) -> usize {
        match split {
            DrawnSplit::Train => self.train,
            DrawnSplit::Dev => self.dev,
            DrawnSplit::Test => self.test,
        }
    }
}

/// A split of the drawn data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawnSplit {
    /// For training.
    Train,
    /// For choosing a checkpoint.
    Dev,
    /// For reporting.
    Test,
}

impl DrawnSplit {
    /// All splits, in the order of their image ids.
    pub const ALL: [Self; 3] = [Self::Train, Self::Dev, Self::Test];
}

impl fmt::Display for DrawnSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        })
    }
}
