//! From an entry to its recall table, next to the published ones, with a verdict.

mod compare;
mod provenance;
mod result;
mod run;
mod similarities;
pub mod table;

pub use compare::{Comparison, Difference, Verdict};
pub use provenance::{CheckpointUsed, DataUsed, Provenance};
pub use result::{Reproduction, SCHEMA, Stage};
pub use run::{Request, reproduce};
pub use similarities::write as write_similarities;
pub(crate) use table::{footnotes, mark};
