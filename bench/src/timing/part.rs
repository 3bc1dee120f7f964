//! The parts that can be measured, and the scenarios.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A part of the work that can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BenchPart {
    /// Pixels to patch embeddings. An item is an image.
    Image,
    /// Token ids to word embeddings. An item is a caption.
    Text,
    /// Similarities of a batch of images, including their preparation, with as many captions. An item is a pair.
    Alignment,
    /// A training step including the optimizer. An item is an image with its caption.
    Training,
    /// Image files through the loader: read, decoded, resized and normalised on all threads. An item is an image.
    Loading,
    /// Image files read and decoded on one thread. An item is an image.
    Decoding,
}

impl BenchPart {
    /// Every part.
    pub const ALL: [Self; 6] =
        [Self::Image, Self::Text, Self::Alignment, Self::Training, Self::Loading, Self::Decoding];

    /// Its name in arguments and results.
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

    /// The unit that throughput counts.
    pub fn item(self) -> &'static str {
        match self {
            Self::Image | Self::Loading | Self::Decoding => "images",
            Self::Text => "captions",
            Self::Alignment | Self::Training => "pairs",
        }
    }

    /// Whether it needs image files.
    pub fn needs_files(self) -> bool {
        matches!(self, Self::Loading | Self::Decoding)
    }
}

impl fmt::Display for BenchPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BenchPart {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| Error::Argument {
            argument: "parts",
            expected: Self::ALL.map(|part| format!("`{part}`")).join(", "),
            found: format!("`{name}`"),
        })
    }
}

/// How work arrives, as in MLPerf Inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// One item at a time; latency counts.
    Single,
    /// Batches; throughput counts.
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
            _ => Err(Error::Argument {
                argument: "scenario",
                expected: "`single` or `offline`".to_owned(),
                found: format!("`{name}`"),
            }),
        }
    }
}
