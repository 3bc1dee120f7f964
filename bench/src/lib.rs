//! Evaluation and benchmarks of LAPS models: recalls with a verdict, tables, reports, model cards, timings and the
//! gate.
//!
//! [`reproduce::reproduce`] evaluates a checkpoint and compares its recalls with the published ones. The
//! [`reproduce::Reproduction`] it returns also records what produced it: configuration, checkpoint, data, engine and
//! machine. Serialised as JSON it is the input of tables, reports and cards.
//!
//! ```
//! use std::{num::NonZeroUsize, sync::atomic::AtomicBool};
//!
//! use laps_bench::{
//!     reproduce::{ReproduceRequest, reproduce, table},
//!     tables::{RecallTables, TableFormat},
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // An embedded entry: its checkpoint is part of the program, and its data is drawn into the cache folder.
//! let entry = laps::hub::registry::find("shapes_vit")?;
//! let request = ReproduceRequest { limit: NonZeroUsize::new(4), ..ReproduceRequest::new(entry) };
//! let result = reproduce(&request, &AtomicBool::new(false), &())?;
//! assert_eq!((result.images, result.captions), (4, 20));
//! println!("{}", table::render(&result));
//! println!("{}", RecallTables::new(vec![result])?.render(TableFormat::Markdown)?);
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//! - [`audit`]: what a sound evaluation must not depend on.
//! - [`reproduce`]: one evaluation with its verdict; [`results`] reads and checks the JSON.
//! - [`tables`], [`report`], [`card`]: results as tables (terminal, Markdown, CSV, LaTeX, JSON), as one HTML page, and as
//!   a model card.
//! - [`catalogue`]: the list of entries, and one entry in detail.
//! - [`timing`]: throughput and latency of encoders, similarities, training and image loading.
//! - [`alignment`]: the similarity engine alone, on random embeddings, stage by stage.
//! - [`foreign`]: recalls of a similarity matrix or of embeddings from another program.
//! - [`statistics`]: confidence intervals of recalls, and a paired test of two results.
//! - [`explanation`]: explanations as a page and as a picture; [`faithfulness`]: whether the patches that they name matter.
//! - [`gate`]: deterministic measures (no clock) compared with committed baselines.
//! - [`publish`]: a model folder for the Hugging Face hub, and results in the format of MTEB.
//! - [`machine`]: the machine that a result was measured on.
//! - [`progress`]: reports the stages of a run to a `Progress`.
//!
//! libtorch is never linked here: requests take a [`Backend`](laps::Backend) or [`Backends`](laps::Backends).

pub mod alignment;
pub mod audit;
pub mod card;
pub mod catalogue;
pub mod error;
pub mod explanation;
pub mod faithfulness;
pub mod files;
pub mod foreign;
pub mod gate;
pub mod machine;
pub mod progress;
pub mod publish;
pub mod report;
pub mod reproduce;
pub mod results;
mod side_texts;
pub mod statistics;
pub mod suite;
pub mod tables;
pub mod timing;
pub mod trec;

pub use error::{Error, Result};

/// The commit that this program was built from, if known.
pub fn commit() -> Option<&'static str> {
    option_env!("LAPS_ZOO_COMMIT")
}

/// Version and commit of this program. The ranks of a distributed run have to have the same.
pub fn version() -> String {
    format!("{} ({})", env!("CARGO_PKG_VERSION"), commit().unwrap_or("commit unknown"))
}
