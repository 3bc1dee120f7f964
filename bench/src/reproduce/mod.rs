//! Evaluation of one checkpoint, compared with the published recalls, with a verdict.

mod compare;
mod encode;
mod inputs;
mod log;
mod loss;
mod matrix;
mod provenance;
mod queries;
mod request;
mod result;
mod run;
pub mod table;

pub(crate) use compare::recalls;
pub use compare::{Comparison, RecallDifference, Verdict};
pub(crate) use encode::PREFETCH;
pub use loss::{PrecisionComparison, RecallLoss, render_losses};
pub use provenance::{CheckpointUsed, DataUsed, Provenance};
pub use queries::{QueryAnswer, QueryFailure, QueryFailures, RankCounts};
pub use request::ReproduceRequest;
pub use result::{Reproduction, SCHEMA, StageTime};
pub use run::reproduce;
pub(crate) use table::{footnotes, mark, outcome, signed};
