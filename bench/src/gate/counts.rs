//! Instruction counts, which `cargo bench -p laps-bench --bench kernels` writes.

use std::{collections::BTreeMap, path::Path};

use laps_files::strip_mark_bytes;
use serde::{Deserialize, Serialize};

use super::{GateGroup, GroupMeasures, Measure};
use crate::{Error, Result};

/// Instruction counts, and their JSON format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCounts {
    /// Why there are no counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Instructions by model, instruction set and stage.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}

impl KernelCounts {
    /// The counts as measures.
    pub fn measures(&self) -> GroupMeasures {
        match &self.skipped {
            Some(reason) => GroupMeasures::skipped(GateGroup::Kernels, reason.clone()),
            None => {
                let measures = self.counts.iter().map(|(name, &count)| Measure::new(name.clone(), count as f64));
                GroupMeasures::measured(GateGroup::Kernels, measures.collect())
            }
        }
    }
}

/// The counts in `file`; skipped without a file.
///
/// # Errors
/// [`Error::Baseline`] for a file that cannot be read or parsed.
pub fn kernels(file: Option<&Path>) -> Result<GroupMeasures> {
    let Some(path) = file else {
        let reason =
            "no file of instruction counts; `cargo bench -p laps-bench --bench kernels -- --counts FILE` writes one";
        return Ok(GroupMeasures::skipped(GateGroup::Kernels, reason));
    };
    let invalid = |source: Box<dyn std::error::Error + Send + Sync>| Error::Baseline { path: path.to_owned(), source };
    let bytes = fs_err::read(path).map_err(|error| invalid(error.into()))?;
    let counts: KernelCounts =
        serde_json::from_slice(strip_mark_bytes(&bytes)).map_err(|error| invalid(error.into()))?;
    Ok(counts.measures())
}
