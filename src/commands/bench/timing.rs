//! `laps-zoo bench --entry NAME`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result};
use clap::Args;
use laps::{Backends, EngineChoice, open_checkpoint};
use laps_bench::{
    files::{check_writable, write_atomic},
    machine::processors,
    timing::{
        self, BenchPart, CaseOptions, Scenario, TimingComparison, TimingRequest, count_multiply_adds, csv, markdown,
        measure, random_checkpoint, render,
    },
};
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{self, Entry},
};
use laps_model::encoder::Device;
use laps_onnx::graph::{Flavour, GraphPrecision};

use crate::{
    progress,
    report::{CommandStatus, print_summary},
};

#[derive(Args)]
#[command(next_help_heading = "Timing")]
pub(crate) struct TimingArgs {
    /// Entry to benchmark (entry name, or path to an entry YAML file)
    #[arg(long)]
    pub(crate) entry: Option<String>,
    /// Comma-separated parts to measure: image, text, alignment, training, loading, decoding [default: all that this build
    /// and the available files allow]
    #[arg(long, value_name = "PARTS", value_delimiter = ',', requires = "entry")]
    parts: Vec<String>,
    /// Comma-separated engines: torch, rust, ort [default: the fastest that needs no export]
    #[arg(long, value_name = "ENGINES", value_delimiter = ',', requires = "entry")]
    engine: Vec<String>,
    /// Comma-separated precisions: fp32, fp16, int8; engines other than ort support fp32 only
    #[arg(long, value_name = "PRECISIONS", value_delimiter = ',', default_value = "fp32", requires = "entry")]
    precision: Vec<String>,
    /// Comma-separated operator sets of the engine ort: portable, ort
    #[arg(long, value_name = "FLAVOURS", value_delimiter = ',', default_value = "portable", requires = "entry")]
    flavour: Vec<String>,
    /// Device: auto, cpu or cuda:N
    #[arg(long, default_value = "auto", requires = "entry")]
    device: String,
    /// Comma-separated batch sizes
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "16", requires = "entry")]
    batch_size: Vec<NonZeroUsize>,
    /// single (latency of one item at a time) or offline (throughput of batches)
    #[arg(long, default_value = "offline", requires = "entry")]
    scenario: String,
    /// Warm-up iterations
    #[arg(long, value_name = "N", default_value = "3", requires = "entry")]
    warm_up: usize,
    /// Measured iterations
    #[arg(long, value_name = "N", default_value = "20", requires = "entry")]
    repeats: NonZeroUsize,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N", requires = "entry")]
    threads: Option<NonZeroUsize>,
    /// Random seed of the inputs, and of the weights if there is no checkpoint
    #[arg(long, default_value = "7", requires = "entry")]
    seed: u64,
    /// Checkpoint (.safetensors or .pth) [default: the embedded one, otherwise random weights]
    #[arg(long, value_name = "FILE", requires = "entry")]
    checkpoint: Option<PathBuf>,
    /// Root of the caption and image folders, for the parts loading and decoding
    #[arg(long, value_name = "DIR", requires = "entry")]
    data: Option<PathBuf>,
    #[command(flatten)]
    source: crate::data_source::DataSource,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE", requires = "entry")]
    json: Option<PathBuf>,
    /// Write one CSV row per measurement
    #[arg(long, value_name = "FILE", requires = "entry")]
    csv: Option<PathBuf>,
    /// Write the table as Markdown
    #[arg(long, value_name = "FILE", requires = "entry")]
    markdown: Option<PathBuf>,
    /// Compare with the JSON result of another run
    #[arg(long, value_name = "FILE", requires = "entry")]
    against: Option<PathBuf>,
}

impl TimingArgs {
    /// Whether the request can only be met with libtorch: the engine `torch`, or training without a named engine.
    pub(crate) fn needs_libtorch(&self) -> bool {
        let trains = self.parts.iter().any(|name| name == "training");
        self.engine.iter().any(|name| name == "torch") || (self.engine.is_empty() && trains)
    }

    pub(crate) fn run(self, quiet: bool, backends: Backends) -> Result<CommandStatus> {
        let entry = self.source.apply(registry::find(self.entry.as_deref().unwrap_or_default())?)?;
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let device = self.device.parse::<Device>()?;
        let scenario = self.scenario.parse::<Scenario>()?;
        let engines = self.engines(backends)?;
        let precisions =
            self.precision.iter().map(|name| name.parse()).collect::<laps_onnx::Result<Vec<GraphPrecision>>>()?;
        let flavours = self.flavour.iter().map(|name| name.parse()).collect::<laps_onnx::Result<Vec<Flavour>>>()?;
        let torch = backends.torch.filter(|_| engines.contains(&EngineChoice::Torch));
        let parts = self.parts(&entry, torch.is_some())?;
        let outputs = [&self.json, &self.csv, &self.markdown];
        outputs.into_iter().flatten().try_for_each(|path| check_writable(path))?;
        // Read it before minutes of work.
        let old = self.against.as_deref().map(read).transpose()?;
        backends.set_threads(threads)?;

        let folder = laps_files::TemporaryFolder::create()?;
        let (checkpoint, weights) = self.weights(&entry, folder.path())?;
        let checkpoint = Rc::new(checkpoint);
        let cases = CaseOptions { entry: &entry, checkpoint: &checkpoint, device, threads, backends };
        let encoders = parts.iter().any(|part| matches!(part, BenchPart::Image | BenchPart::Text));
        let encoders = if encoders { cases.cases(&engines, &precisions, &flavours)? } else { Vec::new() };
        let request = TimingRequest {
            multiply_adds: count_multiply_adds(&entry)?,
            entry: entry.clone(),
            checkpoint: Rc::clone(&checkpoint),
            weights,
            parts,
            encoders,
            device,
            torch,
            batch_sizes: self.batch_size.iter().map(|batch| batch.get()).collect(),
            scenario,
            warm_up: self.warm_up,
            repeats: self.repeats.get(),
            threads,
            seed: self.seed,
            data: self.data.clone(),
        };
        let result = measure(&request, progress::choose(quiet).as_ref())?;
        let json = format!("{}\n", serde_json::to_string_pretty(&result)?);
        for (path, text) in outputs.into_iter().zip([json, csv(&result), markdown(&result)]) {
            path.as_deref().map_or(Ok(()), |path| write_atomic(path, text.as_bytes()))?;
        }
        let comparison = old.map(|old| TimingComparison { new: &result, old: &old }.render());
        let summary = render(&result) + &comparison.unwrap_or_default();
        print_summary(outputs.into_iter().flatten(), &summary)?;
        Ok(CommandStatus::Success)
    }

    fn engines(&self, backends: Backends) -> Result<Vec<EngineChoice>> {
        let fastest = if backends.torch.is_some() { EngineChoice::Torch } else { EngineChoice::Rust };
        let named = self.engine.iter().map(|name| name.parse()).collect::<laps::Result<Vec<EngineChoice>>>()?;
        let named: Vec<EngineChoice> =
            named.into_iter().map(|choice| if choice == EngineChoice::Auto { fastest } else { choice }).collect();
        Ok(if named.is_empty() { vec![fastest] } else { named })
    }

    /// The parts named by the user, or all that can be measured.
    fn parts(&self, entry: &Entry, torch: bool) -> Result<Vec<BenchPart>> {
        let files = self.data.is_some() || entry.data.drawn.is_some();
        let possible = |part: &BenchPart| match part {
            BenchPart::Training => torch,
            part => files || !part.needs_files(),
        };
        match self.parts.is_empty() {
            true => Ok(BenchPart::ALL.into_iter().filter(possible).collect()),
            false => Ok(self.parts.iter().map(|name| name.parse()).collect::<laps_bench::Result<_>>()?),
        }
    }

    /// The checkpoint and its description for the result.
    fn weights(&self, entry: &Entry, folder: &Path) -> Result<(Checkpoint, String)> {
        let random = self.checkpoint.is_none() && registry::embedded_checkpoint(&entry.name).is_none();
        let path = if random { Some(random_checkpoint(entry, self.seed, folder)?) } else { self.checkpoint.clone() };
        let (checkpoint, _) = open_checkpoint(entry, path.as_deref())?;
        let words =
            if random { format!("random, seed {}", self.seed) } else { format!("sha256 {}", checkpoint.sha256()?) };
        Ok((checkpoint, words))
    }
}

/// The result of another run.
fn read(path: &Path) -> Result<timing::TimingResult> {
    let bytes = fs_err::read(path)?;
    serde_json::from_slice(laps_files::strip_mark_bytes(&bytes))
        .with_context(|| format!("`{}` is not a result of `laps-zoo bench --json`", path.display()))
}
