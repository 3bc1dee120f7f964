//! Retrieval: ranks, recalls and the protocols of the published tables.

mod captions;
mod error;
mod failures;
mod hits;
mod protocol;
mod rank;
mod recall;
mod scores;
pub mod similarity;
mod stored;

#[cfg(test)]
mod tests;

pub use captions::CaptionImages;
pub use error::RetrievalError;
pub use failures::{Answer, Failure, failures};
pub use hits::{CUTS, DirectionHits, Hits, hits};
pub use protocol::{Evaluation, Fold, Protocol, evaluate};
pub use rank::{Rank, Ranks, TieRule};
pub use recall::{Directions, Recall, Ties};
pub use scores::Scores;
pub use stored::StoredScores;
