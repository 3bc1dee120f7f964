//! The result, as the JSON file holds it.

use serde::{Deserialize, Serialize};

use super::{Part, Scenario};
use crate::machine::Machine;

/// Version of this structure; it changes when the meaning of a field does.
pub const SCHEMA: u32 = 1;

/// What was measured in one run on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the entry.
    pub entry: String,
    /// SHA-256 of its effective configuration.
    pub config_sha256: String,
    /// What the weights were.
    pub weights: String,
    /// How work arrived.
    pub scenario: Scenario,
    /// Steps before the clock was looked at.
    pub warm_up: usize,
    /// Steps with it.
    pub repeats: usize,
    /// Seed of pixels, tokens and embeddings.
    pub seed: u64,
    /// Threads of every engine.
    pub threads: usize,
    /// The machine.
    pub machine: Machine,
    /// Load of the machine in the minute before, in processes; what else ran makes times longer.
    pub load_before: Option<f64>,
    /// What ran.
    pub versions: Versions,
    /// The figures.
    pub rows: Vec<Row>,
}

/// Versions of the program; those of an engine stand in its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Of this program.
    pub laps_zoo: String,
    /// The commit it was built from, where that is known.
    pub commit: Option<String>,
    /// `release`, or `debug` for a build without optimisation, whose times say little.
    pub build: String,
}

/// One part on one engine with one batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub part: Part,
    /// What computed: `torch`, `rust`, `ort`; `cpu` for the similarity engine on the processor; `loader` and `decoder`.
    pub engine: String,
    /// Operators of the graphs that `ort` ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
    /// Its version; for `cpu` its instruction set.
    pub version: String,
    /// Where it computed.
    pub device: String,
    /// In which numbers.
    pub precision: String,
    /// Images, captions or image files of a step; the alignment compares as many images with as many captions.
    pub batch: usize,
    /// What is counted in `throughput`.
    pub items: String,
    /// Items a second.
    pub throughput: f64,
    /// The time that half of the steps stay within, in milliseconds.
    pub p50_ms: f64,
    /// The same for 90 % of them.
    pub p90_ms: f64,
    /// The same for 99 % of them; the longest where there are fewer than a hundred.
    pub p99_ms: f64,
    /// Numbers in the weights of the part.
    pub parameters: Option<usize>,
    /// 10^9 multiply-adds of an item by the definition of the model, products of matrices counted; a caption has
    /// [`WORDS`](super::Request::WORDS) tokens.
    pub gmacs: Option<f64>,
    /// The most memory of the process during the steps, in bytes above what it had before; memory of a GPU is not in it.
    pub peak_bytes: Option<u64>,
    /// Bytes of the files that were loaded: weights, or graphs.
    pub file_bytes: Option<u64>,
    /// Time of loading them, in milliseconds.
    pub load_ms: Option<f64>,
}

impl Row {
    /// What computed, with the operators of its graphs.
    pub fn way(&self) -> String {
        let flavour = self.flavour.as_ref().map_or_else(String::new, |flavour| format!(", {flavour}"));
        format!("{}{flavour}", self.engine)
    }

    /// What has to be the same in two rows that are compared.
    pub fn key(&self) -> (Part, &str, Option<&str>, &str, &str, usize) {
        (self.part, &self.engine, self.flavour.as_deref(), &self.device, &self.precision, self.batch)
    }
}
