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
pub use compare::{PublishedComparison, RecallDifference, Verdict};
pub(crate) use encode::PREFETCH;
pub use loss::{PrecisionComparison, RecallLoss, render_losses};
pub(crate) use provenance::short;
pub use provenance::{
    CheckpointUsed, DataUsed, EntryUsed, EvaluatedModel, ForeignModel, HeadUsed, Provenance, SourceFile,
};
pub(crate) use queries::counts;
pub use queries::{QueryAnswer, QueryFailure, QueryFailures, QueryRanks, RankCounts};
pub use request::ReproduceRequest;
pub use result::{JudgedEvaluation, Reproduction, RunTime, SCHEMA, StageTime};
pub use run::reproduce;
pub(crate) use table::{AUDITED, audit_mark, footnotes, mark, outcome, signed};
