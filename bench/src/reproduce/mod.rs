//! From an entry to its recall table, next to the published ones, with a verdict.

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
pub use compare::{Comparison, Difference, Verdict};
pub use loss::{Beside, Loss, render_losses};
pub use provenance::{CheckpointUsed, DataUsed, Provenance};
pub use queries::{QueryAnswer, QueryFailure, QueryFailures, RankCounts};
pub use request::Request;
pub use result::{Reproduction, SCHEMA, Stage};
pub use run::reproduce;
pub(crate) use table::{footnotes, mark, outcome, signed};
