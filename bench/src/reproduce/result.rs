//! The result, and its JSON format.

use std::borrow::Cow;

use laps_align::{Evaluation, JudgedDirections};
use serde::{Deserialize, Serialize};

use super::{PrecisionComparison, Provenance, PublishedComparison, QueryFailures, RankCounts, Verdict};
use crate::{audit::AuditCheck, foreign::JudgementSet, statistics::RecallIntervals};

/// Version of the JSON format; it changes when a field changes its meaning.
///
/// Version 2 added `ranks` and `failures`. Version 3 added foreign models, `ranks.queries`, `judged` and `intervals`. The
/// other fields are as in version 1, so all versions can be read.
pub const SCHEMA: u32 = 3;

/// The result of evaluating one model on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reproduction {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the entry, or of the foreign model.
    pub entry: String,
    /// Name of the split; `unknown` for a foreign model without a data set.
    pub split: String,
    /// Number of images that the split was limited to, if it was.
    pub limit: Option<usize>,
    /// Number of images.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// Recalls in percent, and ranks starting at 1, one per protocol.
    pub evaluations: Vec<Evaluation>,
    /// Number of queries by rank, in the order of `evaluations`.
    #[serde(default)]
    pub ranks: Vec<RankCounts>,
    /// The hardest failures of the whole matrix.
    #[serde(default)]
    pub failures: QueryFailures,
    /// Published tables, and the differences from them.
    pub comparisons: Vec<PublishedComparison>,
    /// The outcome of the comparisons.
    pub verdict: Verdict,
    /// Notes about the recalls, for the reader.
    pub notes: Vec<String>,
    /// Time of each stage.
    pub stages: Vec<StageTime>,
    /// Time of the whole run; `None` for a foreign model, and in results that were written before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<RunTime>,
    /// Peak memory of the process, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Provenance of the result.
    pub provenance: Provenance,
    /// Metrics by judgements, if requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<JudgedEvaluation>,
    /// Confidence intervals of the recalls, if requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intervals: Vec<RecallIntervals>,
    /// Checks of the evaluation, if requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<AuditCheck>,
    /// The same evaluation in other precisions, if requested.
    #[serde(rename = "beside", default, skip_serializing_if = "Vec::is_empty")]
    pub precisions: Vec<PrecisionComparison>,
}

impl Reproduction {
    /// The name for headings, which says whether the model is foreign.
    pub fn title(&self) -> String {
        let foreign = if self.provenance.foreign().is_some() { ", foreign model" } else { "" };
        format!("{}{foreign}", self.entry)
    }
}

/// Metrics of the whole matrix by judgements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedEvaluation {
    /// The judgements.
    pub set: JudgementSet,
    /// SHA-256 of the file with the judgements. Of [`JudgementSet::Pmrp`], it is that of `pm_image_to_caption.json` followed by
    /// `pm_caption_to_image.json`.
    pub sha256: String,
    /// The metrics, in percent.
    #[serde(flatten)]
    pub metrics: JudgedDirections,
}

/// The time of one stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    /// Name of the stage.
    pub name: Cow<'static, str>,
    /// Number of items.
    pub items: usize,
    /// Unit of the items: images, captions, pairs, ...
    pub unit: Cow<'static, str>,
    /// Time in seconds.
    pub seconds: f64,
}

/// Stages in which the encoders or the similarities are computed.
pub(super) const ENCODE_CAPTIONS: &str = "encode captions";
pub(super) const ENCODE_IMAGES: &str = "encode images";
pub(super) const SCORE: &str = "score";

/// The time of a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunTime {
    /// Time in seconds, from the check of the request to the recalls.
    pub seconds: f64,
    /// Share of it, from 0 to 1, in which neither encoders nor similarities were computed: reading, hashing and waiting for
    /// images, opening the encoders, ranking.
    pub overhead: f64,
}

impl RunTime {
    /// The time of a run of `seconds` with these stages.
    pub fn new(seconds: f64, stages: &[StageTime]) -> Self {
        let computes = |stage: &&StageTime| [ENCODE_CAPTIONS, ENCODE_IMAGES, SCORE].contains(&stage.name.as_ref());
        let computing: f64 = stages.iter().filter(computes).map(|stage| stage.seconds).sum();
        Self { seconds, overhead: (1.0 - computing / seconds.max(f64::MIN_POSITIVE)).max(0.0) }
    }
}

impl StageTime {
    /// Items per second.
    pub fn rate(&self) -> f64 {
        self.items as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::{RunTime, StageTime};

    #[test]
    fn overhead_is_what_encoders_and_similarities_leave() {
        let stage =
            |name: &'static str, seconds| StageTime { name: name.into(), items: 1, unit: "items".into(), seconds };
        let stages = [
            stage("hash images", 1.0),
            stage("encode captions", 2.0),
            stage("wait for images", 0.5),
            stage("encode images", 3.0),
            stage("score", 1.0),
        ];
        // Two seconds are in no stage.
        assert_eq!(RunTime::new(8.0, &stages), RunTime { seconds: 8.0, overhead: 0.25 });
        assert_eq!(RunTime::new(8.0, &[]).overhead, 1.0);
        // Clocks are read one after the other.
        assert_eq!(RunTime::new(5.999, &stages).overhead, 0.0);
    }
}
