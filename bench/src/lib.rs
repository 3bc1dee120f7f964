//! The harness of LAPS: from an entry to a recall table with a verdict.
//!
//! [`reproduce::reproduce`] computes a [`reproduce::Reproduction`], one documented structure that says what was measured
//! and what measured it; [`reproduce::table`] and serde write it.

pub mod alignment;
pub mod card;
pub mod catalogue;
pub mod error;
pub mod files;
pub mod gate;
pub mod machine;
pub mod progress;
pub mod report;
pub mod reproduce;
pub mod results;
pub mod tables;
pub mod timing;

pub use error::{Error, Result};

/// The commit that this program was built from.
pub fn commit() -> Option<&'static str> {
    option_env!("LAPS_ZOO_COMMIT")
}
