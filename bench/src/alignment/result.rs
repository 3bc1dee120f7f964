//! The result, as the JSON file holds it, and as a table.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Stages;
use crate::machine::Machine;

/// Version of this structure; it changes when the meaning of a field does.
pub const SCHEMA: u32 = 1;

/// One measurement of the alignment.
#[derive(Clone, Debug, Serialize)]
pub struct AlignmentMeasurement {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The entry whose sizes were taken.
    pub entry: String,
    /// Spatial patches of an image.
    pub patches: usize,
    /// Whether a class token comes before them.
    pub has_class_token: bool,
    /// Patches that are kept for a caption.
    pub kept: usize,
    /// Groups that they are merged into.
    pub groups: usize,
    /// Width of an embedding.
    pub embed_size: usize,
    /// Images.
    pub images: usize,
    /// Captions.
    pub captions: usize,
    /// Words of all captions.
    pub words: usize,
    /// Seed of the embeddings.
    pub seed: u64,
    /// Whether embeddings of images were made when they were read, within the time that was measured, and not held.
    pub images_on_the_fly: bool,
    /// `cpu` or `torch`.
    pub engine: &'static str,
    /// What computed: the instruction set, or libtorch and its device.
    pub instruction_set: String,
    /// Threads.
    pub threads: usize,
    /// Bytes that the engine was allowed to take, the inputs not counted.
    pub memory_limit: usize,
    /// Bytes that it planned to take.
    pub planned_bytes: usize,
    /// Bytes of the inputs that were held.
    pub input_bytes: usize,
    /// The most memory of the process while it computed, in bytes above what it had before; `None` where the system does
    /// not tell. Memory of a GPU is not in it.
    pub peak_bytes: Option<u64>,
    /// Wall-clock time of everything from embeddings to similarities.
    pub seconds: f64,
    /// The same for each pair, in microseconds.
    pub us_per_pair: f64,
    /// Time for preparing one image, which is part of the above, in microseconds: on one thread by the engine for CPUs,
    /// on all of them by libtorch. Where images are made when they are read, that is in it.
    pub preparation_us_per_image: f64,
    /// What each stage of a pair costs; `None` where the engine can not be taken apart.
    pub stages: Option<Stages>,
    /// 10^9 operations a second of the product of words and tokens alone, over the whole time.
    pub gflops: f64,
    /// The most that these threads reach with multiply-adds on registers; `None` for a GPU.
    pub peak_gflops: Option<f64>,
    /// `gflops / peak_gflops`.
    pub share_of_peak: Option<f64>,
    /// Pairs.
    pub pairs: u64,
    /// Pairs whose norms were computed from all kept patches, for rounding.
    pub pairs_from_all_kept: u64,
    /// Tokens that were computed as vectors, for rounding.
    pub tokens_as_vectors: u64,
    /// Mean of all similarities.
    pub mean_similarity: f64,
    /// Load of the machine in the minute before, in processes; what else ran makes times longer.
    pub load_before: Option<f64>,
    /// The machine.
    pub machine: Machine,
    /// Version of this program.
    pub version: &'static str,
    /// The commit it was built from, where that is known.
    pub commit: Option<&'static str>,
}

/// The stages for people.
fn render_stages(stages: &Stages) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["stage, on one thread", "us a pair", "share"]);
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
    format!("{table}\nmeasured as a whole, without looking at the clock: {:.3} us a pair\n", stages.whole_us_per_pair)
}

/// The table for people.
pub fn render(result: &AlignmentMeasurement) -> String {
    let mebibytes = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
    let unknown = || "unknown".to_owned();
    let rows = [
        ("time of a pair", format!("{:.2} us", result.us_per_pair)),
        ("all pairs", format!("{:.2} s for {}", result.seconds, result.pairs)),
        ("preparing an image", format!("{:.0} us", result.preparation_us_per_image)),
        ("product of words and tokens", format!("{:.1} GFLOP/s", result.gflops)),
        ("peak of the processor", result.peak_gflops.map_or_else(unknown, |peak| format!("{peak:.1} GFLOP/s"))),
        ("share of the peak", result.share_of_peak.map_or_else(unknown, |share| format!("{:.1} %", 100.0 * share))),
        ("memory above the inputs", result.peak_bytes.map_or_else(unknown, |bytes| mebibytes(bytes as f64))),
        ("memory planned", mebibytes(result.planned_bytes as f64)),
        ("memory of the inputs", mebibytes(result.input_bytes as f64)),
        ("norms from all kept patches", format!("{} pairs", result.pairs_from_all_kept)),
        ("tokens as vectors", result.tokens_as_vectors.to_string()),
        ("load before", result.load_before.map_or_else(unknown, |load| format!("{load:.1} processes"))),
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
    let mut text = format!("{entry}: {images} random images, {captions} random captions of real lengths\n");
    // Writing to a string can not fail.
    let _ = writeln!(text, "engine {engine} ({instruction_set}), {threads} of {machine}");
    let _ = writeln!(text, "{table}");
    if let Some(stages) = &result.stages {
        text += &render_stages(stages);
    }
    text
}
