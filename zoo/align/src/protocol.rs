//! Protocols: on which parts of the matrix the published tables were computed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{CaptionImages, Directions, Ranks, RetrievalError, Scores, TieRule, Ties};

/// Images of a fold of [`Protocol::Coco1k`].
const FOLD: usize = 1000;

/// Which images and captions compete with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The whole matrix; published on 1,000 x 5,000.
    F30k,
    /// The whole matrix; published on 5,000 x 25,000.
    #[serde(rename = "coco_5k")]
    Coco5k,
    /// Consecutive folds of 1,000 images with their captions, figures averaged; published on five folds of 1,000 x 5,000.
    #[serde(rename = "coco_1k")]
    Coco1k,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::F30k, Self::Coco5k, Self::Coco1k];

    /// The name in entry files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F30k => "f30k",
            Self::Coco5k => "coco_5k",
            Self::Coco1k => "coco_1k",
        }
    }

    /// Images and captions of the published tables.
    pub fn published_size(self) -> (usize, usize) {
        match self {
            Self::F30k => (1000, 5000),
            Self::Coco5k | Self::Coco1k => (5000, 25000),
        }
    }

    /// Images that compete with each other; an error where `images` cannot be divided that way. Costs nothing, so it
    /// can be asked before the matrix is computed.
    pub fn fold_size(self, images: usize) -> Result<usize, RetrievalError> {
        match self {
            Self::F30k | Self::Coco5k if images > 0 => Ok(images),
            Self::Coco1k if images > 0 && images.is_multiple_of(FOLD) => Ok(FOLD),
            Self::F30k | Self::Coco5k => Err(self.refuse("at least 1 image", images)),
            Self::Coco1k => Err(self.refuse("a multiple of 1000 images", images)),
        }
    }

    fn refuse(self, expected: &str, found: usize) -> RetrievalError {
        RetrievalError::Protocol { protocol: self, expected: expected.to_owned(), found }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = RetrievalError;

    fn from_str(name: &str) -> Result<Self, RetrievalError> {
        let known = Self::ALL.into_iter().find(|protocol| protocol.name() == name);
        known.ok_or_else(|| RetrievalError::UnknownProtocol { name: name.to_owned() })
    }
}

/// A recall table and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How it was computed.
    pub protocol: Protocol,
    /// Rows of the matrix.
    pub images: usize,
    /// Columns of the matrix.
    pub captions: usize,
    /// Whether these are the sizes that the published tables were computed on; only then may figures be compared.
    pub published_size: bool,
    /// The rule for ties of the headline figures.
    pub rule: TieRule,
    /// The headline figures; with several folds, their means.
    #[serde(flatten)]
    pub headline: Directions,
    /// The same if each tie is decided for the right answer.
    pub optimistic: Directions,
    /// The same if each tie is decided against the right answer.
    pub pessimistic: Directions,
    /// Queries that the rule for ties matters to, over all folds.
    pub ties: Ties,
    /// The parts, at least one; written out if there are several, and none if it was read where they were not.
    #[serde(default, skip_serializing_if = "is_whole")]
    pub folds: Vec<Fold>,
}

/// Consecutive images and their captions, evaluated among themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// Row of its first image.
    pub first_image: usize,
    /// Its images.
    pub images: usize,
    /// Their captions.
    pub captions: usize,
    /// The headline figures.
    #[serde(flatten)]
    pub headline: Directions,
    /// The same if each tie is decided for the right answer.
    pub optimistic: Directions,
    /// The same if each tie is decided against the right answer.
    pub pessimistic: Directions,
    /// Queries that the rule for ties matters to.
    pub ties: Ties,
    /// The ranks themselves; they are not written out.
    #[serde(skip)]
    pub ranks: Ranks,
}

fn is_whole(folds: &[Fold]) -> bool {
    folds.len() <= 1
}

/// Ranks and recalls of a similarity matrix. Reads each value of the folds once and keeps 12 bytes a caption and thread.
pub fn evaluate(scores: &Scores, captions: &CaptionImages, protocol: Protocol) -> Result<Evaluation, RetrievalError> {
    let (images, columns) = (captions.images(), captions.captions());
    if (scores.images(), scores.captions()) != (images, columns) {
        return Err(RetrievalError::Size {
            expected: format!("{images} images x {columns} captions"),
            found: format!("{} images x {} captions", scores.images(), scores.captions()),
        });
    }
    let size = protocol.fold_size(images)?;
    let starts = (0..images).step_by(size);
    let folds = starts.map(|start| Fold::new(scores, captions, start, size)).collect::<Result<Vec<_>, _>>()?;
    let mean = |side: fn(&Fold) -> Directions| Directions::mean(&folds.iter().map(side).collect::<Vec<_>>());
    Ok(Evaluation {
        protocol,
        images,
        captions: columns,
        published_size: (images, columns) == protocol.published_size(),
        rule: TieRule::HEADLINE,
        headline: mean(|fold| fold.headline),
        optimistic: mean(|fold| fold.optimistic),
        pessimistic: mean(|fold| fold.pessimistic),
        ties: Ties {
            i2t: folds.iter().map(|fold| fold.ties.i2t).sum(),
            t2i: folds.iter().map(|fold| fold.ties.t2i).sum(),
        },
        folds,
    })
}

impl Fold {
    fn new(scores: &Scores, captions: &CaptionImages, start: usize, size: usize) -> Result<Self, RetrievalError> {
        let ranks = Ranks::of(scores, captions, start..start + size)?;
        Ok(Self {
            first_image: start,
            images: size,
            captions: ranks.t2i.len(),
            headline: Directions::of(&ranks, TieRule::HEADLINE),
            optimistic: Directions::of(&ranks, TieRule::Optimistic),
            pessimistic: Directions::of(&ranks, TieRule::Pessimistic),
            ties: Ties::of(&ranks),
            ranks,
        })
    }
}
