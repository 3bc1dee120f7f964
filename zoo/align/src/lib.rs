//! Exact LAPS similarities of image and caption embeddings, their gradient, and the retrieval metrics of a similarity matrix.
//!
//! | Module or type | Purpose |
//! |---|---|
//! | [`similarity::Engine`] | Exact similarities on a CPU, within a memory limit; [`similarity`] explains the algebra |
//! | [`similarity::SimilarityEngine`] | The interface of similarity engines; `laps-torch` implements it for GPUs |
//! | [`similarity::ImageSource`], [`similarity::CaptionMatrix`] | Inputs: image embeddings, read one image at a time, and normalised words |
//! | [`similarity::TileSink`], [`similarity::MatrixFile`] | Outputs: receivers of finished tiles, and a file that an interrupted run resumes |
//! | [`gradient`] | Gradient of selected similarities with respect to the embeddings, for training |
//! | [`Scores`], [`StoredScores`] | A similarity matrix in memory or in a file |
//! | [`CaptionImages`] | The image of each caption |
//! | [`evaluate`] | Ranks and recalls under a [`Protocol`], for each [`TieRule`] |
//! | [`hits`], [`failures`] | Hits with bounds for rounding, and the queries with the lowest-ranked matches |
//!
//! Sizes come from an [`AlignmentConfig`](similarity::AlignmentConfig), weights from a checkpoint as
//! [`AggregationWeights`](similarity::AggregationWeights). Embeddings are f32. A similarity has the same bits in any matrix,
//! tile and number of threads.
//!
//! # Example
//!
//! Compute the similarities of three random images with two captions each, and their recalls:
//!
//! ```
//! use laps_align::{
//!     CaptionImages, Protocol, Scores, evaluate,
//!     similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions},
//! };
//! use laps_model::{array::Array, random::SplitMix64};
//!
//! let config = AlignmentConfig { patches: 4, has_class_token: true, kept: 2, groups: 1, width: 8 };
//! let mut random = SplitMix64::named(7, "example");
//! let mut normal = |shape: &[usize]| {
//!     let values = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
//!     Array::new(shape, values)
//! };
//! let weights = AggregationWeights {
//!     norm_weight: normal(&[8])?,
//!     norm_bias: normal(&[8])?,
//!     hidden_weight: normal(&[2, 8])?,
//!     hidden_bias: normal(&[2])?,
//!     group_weight: normal(&[1, 2])?,
//!     group_bias: normal(&[1])?,
//!     scale: Array::new(&[1, 1, 1], vec![1.0])?,
//! };
//! let images = normal(&[3, config.tokens(), config.width])?;
//! // The three words of each caption are patches of its image.
//! let mut captions = CaptionMatrix::new(config.width);
//! for image in 0..3 {
//!     for first in 1..3 {
//!         let start = (image * config.tokens() + first) * config.width;
//!         captions.push(&[3, 8], &images.values()[start..start + 3 * 8])?;
//!     }
//! }
//!
//! let engine = Engine::new(config, &weights, EngineOptions::default())?;
//! let similarities = engine.similarities(&images, &captions)?;
//! assert_eq!(similarities.dims(), [3, 6]);
//!
//! let scores = Scores::new(similarities.values(), 3, 6)?;
//! let evaluation = evaluate(&scores, &CaptionImages::uniform(3, 2)?, Protocol::F30k)?;
//! assert_eq!([evaluation.headline.i2t.r1, evaluation.headline.t2i.r1], [100.0, 100.0]);
//! assert_eq!(evaluation.headline.rsum, 600.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Tests of other crates compile the test samples too, and know this crate by its name.
#[cfg(test)]
extern crate self as laps_align;

mod captions;
mod error;
mod failures;
pub mod gradient;
mod hits;
mod judged;
mod protocol;
mod rank;
mod recall;
mod scores;
pub mod similarity;
mod stored;

#[cfg(test)]
mod tests;

pub use captions::CaptionImages;
pub use error::{Error, Result, RetrievalError};
pub use failures::{Candidate, FailedQuery, HardestQueries, QueryScores, failures};
pub use hits::{DirectionHits, Hits, TOP_K, hits};
pub use judged::{AnswerRanks, JudgedDirections, JudgedMetrics, JudgedQuery, Judgements, answer_ranks, judged_metrics};
pub use protocol::{Evaluation, Fold, Protocol, evaluate};
pub use rank::{PartialRanks, Rank, Ranks, TieRule};
pub use recall::{Directions, Recall, Ties};
pub use scores::Scores;
pub use stored::StoredScores;
