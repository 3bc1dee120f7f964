//! Retrieval: ranks, recalls and the protocols of the published tables.

// Test samples name this crate as other crates do.
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
pub use failures::{Answer, Failure, failures};
pub use hits::{CUTS, DirectionHits, Hits, hits};
pub use judged::{JudgedDirections, JudgedMetrics, JudgedQuery, Judgements, judged_metrics};
pub use protocol::{Evaluation, Fold, Protocol, evaluate};
pub use rank::{Rank, Ranks, TieRule};
pub use recall::{Directions, Recall, Ties};
pub use scores::Scores;
pub use stored::StoredScores;
