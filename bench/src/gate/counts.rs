//! Instruction counts, which `cargo bench -p bench --bench kernels` makes.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{Gathered, Group, Measure};
use crate::{Error, Result};

/// The file of counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCounts {
    /// Why there are none, where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Instructions by model, instruction set and stage.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}

impl KernelCounts {
    /// As measures.
    pub fn gathered(&self) -> Gathered {
        match &self.skipped {
            Some(reason) => Gathered::skipped(Group::Kernels, reason.clone()),
            None => {
                let measures = self.counts.iter().map(|(name, &count)| Measure::new(name.clone(), count as f64));
                Gathered::measured(Group::Kernels, measures.collect())
            }
        }
    }
}

/// The counts in a file; without one they are skipped.
///
/// # Errors
/// [`Error::Baseline`] for a file that can not be read, or is none.
pub fn kernels(file: Option<&Path>) -> Result<Gathered> {
    let Some(path) = file else {
        let how = "`cargo bench -p bench --no-default-features --bench kernels -- --counts FILE` makes them";
        return Ok(Gathered::skipped(Group::Kernels, format!("no counts are given as --kernels; {how}")));
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Baseline { path: path.to_owned(), source };
    let bytes = fs_err::read(path).map_err(|error| failed(error.into()))?;
    let counts: KernelCounts = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    Ok(counts.gathered())
}
