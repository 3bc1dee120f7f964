//! What is measured, and how it is asked for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Pixels to patch embeddings; an item is an image.
    Image,
    /// Tokens to word embeddings; an item is a caption.
    Text,
    /// A batch of images, prepared anew, against as many captions; an item is a pair.
    Alignment,
    /// A step of training, the optimizer included; an item is a pair of an image and its caption.
    Training,
    /// Image files through the loader: read, decoded, resized and normalised by all threads; an item is an image.
    Loading,
    /// Image files read and decoded by one thread; an item is an image.
    Decoding,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Image, Self::Text, Self::Alignment, Self::Training, Self::Loading, Self::Decoding];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Alignment => "alignment",
            Self::Training => "training",
            Self::Loading => "loading",
            Self::Decoding => "decoding",
        }
    }

    /// What is counted.
    pub fn item(self) -> &'static str {
        match self {
            Self::Image | Self::Loading | Self::Decoding => "images",
            Self::Text => "captions",
            Self::Alignment | Self::Training => "pairs",
        }
    }

    /// Whether image files are needed.
    pub fn needs_files(self) -> bool {
        matches!(self, Self::Loading | Self::Decoding)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| Error::Option {
            option: "--parts",
            expected: Self::ALL.map(|part| format!("`{part}`")).join(", "),
            found: format!("`{name}`"),
        })
    }
}

/// How work arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// One item at a time, each waited for: the time of a step is what a user waits.
    Single,
    /// All items are there: batches, whose throughput counts.
    Offline,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Offline => "offline",
        })
    }
}

impl FromStr for Scenario {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "single" => Ok(Self::Single),
            "offline" => Ok(Self::Offline),
            _ => Err(Error::Option {
                option: "--scenario",
                expected: "`single` or `offline`".to_owned(),
                found: format!("`{name}`"),
            }),
        }
    }
}
