//! The result of a measurement, and its JSON format.

use serde::{Deserialize, Serialize};

use super::{BenchPart, Scenario};
use crate::machine::Machine;

/// Version of the JSON format; it changes when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// The measurements of one run on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimingResult {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the entry.
    pub entry: String,
    /// SHA-256 of the effective configuration.
    pub config_sha256: String,
    /// Description of the weights.
    pub weights: String,
    /// How work arrived.
    pub scenario: Scenario,
    /// Warm-up iterations.
    pub warm_up: usize,
    /// Measured iterations.
    pub repeats: usize,
    /// Random seed of pixels, tokens and embeddings.
    pub seed: u64,
    /// Number of threads of every engine.
    pub threads: usize,
    /// The machine.
    pub machine: Machine,
    /// Load average of the minute before, in processes. Other load makes times longer.
    pub load_before: Option<f64>,
    /// The program.
    pub versions: Versions,
    /// The measurements.
    pub rows: Vec<TimingRow>,
}

/// Version and build of the program. Each row has the version of its engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Version of this program.
    pub laps_zoo: String,
    /// The commit it was built from, if known.
    pub commit: Option<String>,
    /// `release`, or `debug` for a build without optimisation, whose times are not representative.
    pub build: String,
}

/// One part on one engine with one batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimingRow {
    /// The part.
    pub part: BenchPart,
    /// `torch`, `rust` or `ort`; `cpu` for the similarity engine on CPUs; `loader` and `decoder` for image files.
    pub engine: String,
    /// Operator flavour of the graphs that `ort` ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
    /// Version of the engine; for `cpu` its instruction set.
    pub version: String,
    /// Device.
    pub device: String,
    /// Precision: `fp32`, `fp16`, `bf16` or `int8`; `8 bits` for pixels of image files.
    pub precision: String,
    /// Images, captions or image files per iteration; the alignment compares this many images with this many captions.
    pub batch: usize,
    /// The unit of `throughput`.
    pub items: String,
    /// Items per second.
    pub throughput: f64,
    /// Median time of an iteration, in milliseconds.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile; the longest iteration if there are fewer than 100.
    pub p99_ms: f64,
    /// Number of parameters of the part.
    pub parameters: Option<usize>,
    /// 10^9 multiply-adds in matrix products per item, counted in the model definition; a caption has
    /// [`WORDS`](super::TimingRequest::WORDS) tokens.
    pub gmacs: Option<f64>,
    /// Peak memory of the process during the iterations, in bytes above the memory before; excludes GPU memory.
    pub peak_bytes: Option<u64>,
    /// Size in bytes of the files that were loaded: weights or graphs.
    pub file_bytes: Option<u64>,
    /// Time to load them, in milliseconds.
    pub load_ms: Option<f64>,
}

impl TimingRow {
    /// The engine, with the flavour of its graphs.
    pub(super) fn engine_label(&self) -> String {
        let flavour = self.flavour.as_ref().map_or_else(String::new, |flavour| format!(", {flavour}"));
        format!("{}{flavour}", self.engine)
    }

    /// The fields by which rows of two results are matched.
    pub(super) fn key(&self) -> (BenchPart, &str, Option<&str>, &str, &str, usize) {
        (self.part, &self.engine, self.flavour.as_deref(), &self.device, &self.precision, self.batch)
    }
}
