//! The result, as the JSON file holds it.

use std::borrow::Cow;

use laps_align::Evaluation;
use serde::{Deserialize, Serialize};

use super::{Beside, Comparison, Provenance, QueryFailures, RankCounts, Verdict};

/// Version of this structure; it changes when the meaning of a field does.
///
/// 2: `ranks` and `failures` are there. What version 1 has means the same, so it can be read.
pub const SCHEMA: u32 = 2;

/// What one evaluation of one checkpoint gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reproduction {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the entry.
    pub entry: String,
    /// Name of the split.
    pub split: String,
    /// Images that the split was cut to, where it was.
    pub limit: Option<usize>,
    /// Images.
    pub images: usize,
    /// Captions.
    pub captions: usize,
    /// Recalls in percent and ranks from 1, a protocol each.
    pub evaluations: Vec<Evaluation>,
    /// How many queries have which rank, in the order of `evaluations`.
    #[serde(default)]
    pub ranks: Vec<RankCounts>,
    /// The hardest queries of the whole matrix that failed.
    #[serde(default)]
    pub failures: QueryFailures,
    /// Published tables, and the differences to them.
    pub comparisons: Vec<Comparison>,
    /// What follows.
    pub verdict: Verdict,
    /// What the reader has to know about the figures.
    pub notes: Vec<String>,
    /// Where the time went.
    pub stages: Vec<Stage>,
    /// The most memory that the process had, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// What produced this.
    pub provenance: Provenance,
    /// The same in other precisions, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

/// A part of the work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What was done.
    pub name: Cow<'static, str>,
    /// How many were done: images, captions or pairs.
    pub items: usize,
    /// What they are.
    pub unit: Cow<'static, str>,
    /// How long it took.
    pub seconds: f64,
}

impl Stage {
    /// Items a second.
    pub fn rate(&self) -> f64 {
        self.items as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}
