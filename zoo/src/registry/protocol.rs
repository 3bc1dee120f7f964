//! Names of the evaluation protocols.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a test split is turned into recalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The whole split at once; of Flickr30K that is 1,000 images.
    F30k,
    /// The whole split of 5,000 COCO images at once.
    #[serde(rename = "coco_5k")]
    Coco5k,
    /// Folds of 1,000 consecutive COCO images, metrics averaged.
    #[serde(rename = "coco_1k")]
    Coco1k,
}

impl Protocol {
    /// As entry files and tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F30k => "f30k",
            Self::Coco5k => "coco_5k",
            Self::Coco1k => "coco_1k",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
