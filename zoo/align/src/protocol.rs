//! Evaluation protocols: which parts of the matrix the published tables were computed on.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{CaptionImages, Directions, Ranks, RetrievalError, Scores, TieRule, Ties};

/// Images of a fold of [`Protocol::Coco1k`].
const FOLD_IMAGES: usize = 1000;

/// An evaluation protocol: which images and captions are ranked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The whole matrix. Published for 1,000 x 5,000.
    F30k,
    /// The whole matrix. Published for 5,000 x 25,000.
    #[serde(rename = "coco_5k")]
    Coco5k,
    /// Consecutive folds of 1,000 images with their captions; metrics are means over the folds. Published for five folds of
    /// 1,000 x 5,000.
    #[serde(rename = "coco_1k")]
    Coco1k,
}

impl Protocol {
    /// All protocols.
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

    /// Images that are ranked against each other in a matrix of `images`. Call it before the matrix is computed to reject a
    /// size early.
    ///
    /// # Errors
    /// [`RetrievalError::Protocol`] if `images` cannot be divided into folds.
    pub fn fold_size(self, images: usize) -> Result<usize, RetrievalError> {
        match self {
            Self::F30k | Self::Coco5k if images > 0 => Ok(images),
            Self::Coco1k if images > 0 && images.is_multiple_of(FOLD_IMAGES) => Ok(FOLD_IMAGES),
            Self::F30k | Self::Coco5k => Err(self.size_error("at least 1 image", images)),
            Self::Coco1k => Err(self.size_error("a multiple of 1000 images", images)),
        }
    }

    fn size_error(self, expected: &str, found: usize) -> RetrievalError {
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

/// Metrics of a similarity matrix under one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The protocol.
    pub protocol: Protocol,
    /// Rows of the matrix.
    pub images: usize,
    /// Columns of the matrix.
    pub captions: usize,
    /// Whether the matrix has the size that the tables were published for. Only then are the metrics comparable with them.
    pub published_size: bool,
    /// The tie rule of the headline metrics.
    pub rule: TieRule,
    /// Headline metrics; with several folds, their means.
    #[serde(flatten)]
    pub headline: Directions,
    /// Metrics with every tie decided for the match.
    pub optimistic: Directions,
    /// Metrics with every tie decided against the match.
    pub pessimistic: Directions,
    /// Queries whose rank depends on the tie rule, over all folds.
    pub ties: Ties,
    /// The folds, at least one after [`evaluate`]. They are serialised only if there are several.
    #[serde(default, skip_serializing_if = "is_whole")]
    pub folds: Vec<Fold>,
}

/// Consecutive images and their captions, ranked among themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// Row of the first image.
    pub first_image: usize,
    /// Number of images.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// Headline metrics.
    #[serde(flatten)]
    pub headline: Directions,
    /// Metrics with every tie decided for the match.
    pub optimistic: Directions,
    /// Metrics with every tie decided against the match.
    pub pessimistic: Directions,
    /// Queries whose rank depends on the tie rule.
    pub ties: Ties,
    /// The ranks; not serialised.
    #[serde(skip)]
    pub ranks: Ranks,
}

fn is_whole(folds: &[Fold]) -> bool {
    folds.len() <= 1
}

/// Computes ranks and recalls of a similarity matrix. It reads each value once per protocol, and needs up to 80 bytes per
/// caption and thread.
///
/// # Errors
/// Sizes that differ or do not fit the protocol, a NaN, and a matrix that cannot be read.
pub fn evaluate(scores: &Scores, captions: &CaptionImages, protocol: Protocol) -> Result<Evaluation, RetrievalError> {
    let (images, columns) = (captions.images(), captions.captions());
    if (scores.images(), scores.captions()) != (images, columns) {
        return Err(RetrievalError::Size {
            expected: format!("{images} images x {columns} captions"),
            found: format!("{} images x {} captions", scores.images(), scores.captions()),
        });
    }
    Evaluation::of(captions, protocol, |images| Ranks::of(scores, captions, images))
}

impl Evaluation {
    /// Metrics from the ranks of each fold, which `ranks` returns for the images of the fold.
    ///
    /// # Errors
    /// A size that does not fit the protocol, and the errors of `ranks`.
    pub fn of<E: From<RetrievalError>>(
        captions: &CaptionImages,
        protocol: Protocol,
        mut ranks: impl FnMut(Range<usize>) -> Result<Ranks, E>,
    ) -> Result<Self, E> {
        let (images, columns) = (captions.images(), captions.captions());
        let size = protocol.fold_size(images)?;
        let starts = (0..images).step_by(size);
        let folds = starts.map(|start| Ok(Fold::new(start, ranks(start..start + size)?)));
        let folds = folds.collect::<Result<Vec<_>, E>>()?;
        let mean = |side: fn(&Fold) -> Directions| Directions::mean(&folds.iter().map(side).collect::<Vec<_>>());
        Ok(Self {
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
}

impl Fold {
    fn new(first_image: usize, ranks: Ranks) -> Self {
        Self {
            first_image,
            images: ranks.i2t.len(),
            captions: ranks.t2i.len(),
            headline: Directions::of(&ranks, TieRule::HEADLINE),
            optimistic: Directions::of(&ranks, TieRule::Optimistic),
            pessimistic: Directions::of(&ranks, TieRule::Pessimistic),
            ties: Ties::of(&ranks),
            ranks,
        }
    }
}
