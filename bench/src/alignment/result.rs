//! The result, its JSON format, and its table.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Stages;
use crate::machine::Machine;

/// Version of the JSON format; it changes when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// One measurement of the similarity engine.
#[derive(Clone, Debug, Serialize)]
pub struct AlignmentMeasurement {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Entry that gave the sizes.
    pub entry: String,
    /// Number of spatial patches per image.
    pub patches: usize,
    /// Whether a class token precedes the patches.
    pub has_class_token: bool,
    /// Number of patches kept for a caption.
    pub kept: usize,
    /// Number of tokens that the kept patches are merged into.
    pub groups: usize,
    /// Dimension of the embeddings.
    pub embed_size: usize,
    /// Number of images.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// Number of words of all captions.
    pub words: usize,
    /// Random seed of the embeddings.
    pub seed: u64,
    /// Whether image embeddings were generated when they were read, within the measured time.
    pub images_on_the_fly: bool,
    /// `cpu` or `torch`.
    pub engine: &'static str,
    /// The instruction set, or libtorch and its device.
    pub instruction_set: String,
    /// Number of threads.
    pub threads: usize,
    /// Memory limit of the engine in bytes, not counting its inputs.
    pub memory_limit: usize,
    /// Memory that the engine planned to use, in bytes.
    pub planned_bytes: usize,
    /// Memory of the inputs, in bytes.
    pub input_bytes: usize,
    /// Peak memory of the process while it computed, in bytes above the memory before; `None` if the system does not
    /// report it. Excludes GPU memory.
    pub peak_bytes: Option<u64>,
    /// Wall-clock time from embeddings to similarities.
    pub seconds: f64,
    /// Wall-clock time per pair, in microseconds.
    pub us_per_pair: f64,
    /// Preparation time per image, included in the above, in microseconds: on one thread for the CPU engine, on all
    /// threads for libtorch. Includes generating image embeddings on demand.
    pub preparation_us_per_image: f64,
    /// Time of each stage of a pair; `None` if the engine cannot report stages.
    pub stages: Option<Stages>,
    /// 10^9 floating-point operations per second, counting the product of words and tokens over the whole time.
    pub gflops: f64,
    /// Peak of these threads with multiply-adds on registers; `None` for a GPU.
    pub peak_gflops: Option<f64>,
    /// `gflops / peak_gflops`.
    pub share_of_peak: Option<f64>,
    /// Number of pairs.
    pub pairs: u64,
    /// Number of pairs whose norms were recomputed from all kept patches because of rounding.
    pub pairs_from_all_kept: u64,
    /// Number of tokens that were recomputed as vectors because of rounding.
    pub tokens_as_vectors: u64,
    /// Mean of all similarities.
    pub mean_similarity: f64,
    /// Load average of the minute before, in processes. Other load makes times longer.
    pub load_before: Option<f64>,
    /// The machine.
    pub machine: Machine,
    /// Version of this program.
    pub version: &'static str,
    /// The commit it was built from, if known.
    pub commit: Option<&'static str>,
}

/// The table of stages.
fn render_stages(stages: &Stages) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["stage, on one thread", "us per pair", "share"]);
    for stage in &stages.stages {
        let share = format!("{:.1} %", 100.0 * stage.share);
        table.add_row([stage.name.to_owned(), format!("{:.3}", stage.us_per_pair), share]);
    }
    table.add_row(["sum".to_owned(), format!("{:.3}", stages.sum_us_per_pair), "100.0 %".to_owned()]);
    for column in 1..3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\nmeasured as a whole, without timing stages: {:.3} us per pair\n", stages.whole_us_per_pair)
}

/// The result as tables.
pub fn render(result: &AlignmentMeasurement) -> String {
    let mebibytes = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
    let unknown = || "unknown".to_owned();
    let rows = [
        ("time per pair", format!("{:.2} us", result.us_per_pair)),
        ("all pairs", format!("{:.2} s for {}", result.seconds, result.pairs)),
        ("preparation per image", format!("{:.0} us", result.preparation_us_per_image)),
        ("product of words and tokens", format!("{:.1} GFLOP/s", result.gflops)),
        ("CPU peak", result.peak_gflops.map_or_else(unknown, |peak| format!("{peak:.1} GFLOP/s"))),
        ("share of the CPU peak", result.share_of_peak.map_or_else(unknown, |share| format!("{:.1} %", 100.0 * share))),
        ("peak memory above the inputs", result.peak_bytes.map_or_else(unknown, |bytes| mebibytes(bytes as f64))),
        ("planned memory", mebibytes(result.planned_bytes as f64)),
        ("memory of the inputs", mebibytes(result.input_bytes as f64)),
        ("norms recomputed from all kept patches", format!("{} pairs", result.pairs_from_all_kept)),
        ("tokens recomputed as vectors", result.tokens_as_vectors.to_string()),
        ("load average before", result.load_before.map_or_else(unknown, |load| format!("{load:.1}"))),
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["alignment", ""]);
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let AlignmentMeasurement { entry, images, captions, engine, instruction_set, threads, machine, .. } = result;
    let threads = format!("{threads} thread{}", if *threads == 1 { "" } else { "s" });
    let mut text = format!("{entry}: {images} random images, {captions} random captions with realistic lengths\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "engine {engine} ({instruction_set}), {threads} of {machine}");
    let _ = writeln!(text, "{table}");
    if let Some(stages) = &result.stages {
        text += &render_stages(stages);
    }
    text
}
