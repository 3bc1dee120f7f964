//! `laps-zoo bench --entry NAME`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result};
use bench::{
    engine::{self, EngineChoice},
    files::{check_writable, write_whole},
    machine::processors,
    reproduce::open_checkpoint,
    timing::{self, Against, Part, Request, Scenario, csv, markdown, measure, random_checkpoint, render},
};
use clap::Args;
use export::{graph::Flavour, package::Precision};
use zoo::{
    checkpoint::Checkpoint,
    encoder::Device,
    registry::{self, Entry},
};

use crate::{
    progress,
    report::{Finding, print},
    ways::{Subject, counts, ways},
};

#[derive(Args)]
#[command(next_help_heading = "Measuring")]
pub(crate) struct Timing {
    /// Name of the entry, or path of the entry file, whose parts are measured
    #[arg(long)]
    pub(crate) entry: Option<String>,
    /// Parts, between commas: image, text, alignment, training, loading, decoding [default: those that this build and the
    /// files at hand have]
    #[arg(long, value_name = "PARTS", value_delimiter = ',', requires = "entry")]
    parts: Vec<String>,
    /// Engines, between commas: torch, rust, ort [default: the fastest that needs no export]
    #[arg(long, value_name = "ENGINES", value_delimiter = ',', requires = "entry")]
    engine: Vec<String>,
    /// Numbers of the graphs of the engine ort, between commas: fp32, fp16, int8; the others have fp32 only
    #[arg(long, value_name = "PRECISIONS", value_delimiter = ',', default_value = "fp32", requires = "entry")]
    precision: Vec<String>,
    /// Operators of the graphs of the engine ort, between commas: portable, ort
    #[arg(long, value_name = "FLAVOURS", value_delimiter = ',', default_value = "portable", requires = "entry")]
    flavour: Vec<String>,
    /// Where: auto, cpu, cuda:N
    #[arg(long, default_value = "auto", requires = "entry")]
    device: String,
    /// Items of a step, between commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "16", requires = "entry")]
    batch_size: Vec<NonZeroUsize>,
    /// single: one item at a time, whose time counts; offline: batches, whose throughput counts
    #[arg(long, default_value = "offline", requires = "entry")]
    scenario: String,
    /// Steps before the clock is looked at
    #[arg(long, value_name = "N", default_value = "3", requires = "entry")]
    warm_up: usize,
    /// Steps with it
    #[arg(long, value_name = "N", default_value = "20", requires = "entry")]
    repeats: NonZeroUsize,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N", requires = "entry")]
    threads: Option<NonZeroUsize>,
    /// Seed of pixels, tokens and embeddings, and of weights where there is no checkpoint
    #[arg(long, default_value = "7", requires = "entry")]
    seed: u64,
    /// The checkpoint [default: the embedded one, or else random weights]
    #[arg(long, value_name = "FILE", requires = "entry")]
    checkpoint: Option<PathBuf>,
    /// Root of the caption and image folders, for loading and decoding
    #[arg(long, value_name = "DIR", requires = "entry")]
    data: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE", requires = "entry")]
    json: Option<PathBuf>,
    /// Write a line for each figure as CSV
    #[arg(long, value_name = "FILE", requires = "entry")]
    csv: Option<PathBuf>,
    /// Write the table as Markdown
    #[arg(long, value_name = "FILE", requires = "entry")]
    markdown: Option<PathBuf>,
    /// Compare with the JSON of another run, like with like
    #[arg(long, value_name = "FILE", requires = "entry")]
    against: Option<PathBuf>,
}

impl Timing {
    pub(crate) fn run(self, quiet: bool) -> Result<Finding> {
        let entry = registry::find(self.entry.as_deref().unwrap_or_default())?;
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let device = self.device.parse::<Device>()?;
        let scenario = self.scenario.parse::<Scenario>()?;
        let engines = self.engines()?;
        let precisions = self.precision.iter().map(|name| name.parse()).collect::<export::Result<Vec<Precision>>>()?;
        let flavours = self.flavour.iter().map(|name| name.parse()).collect::<export::Result<Vec<Flavour>>>()?;
        let torch = cfg!(feature = "torch") && engines.contains(&EngineChoice::Torch);
        let parts = self.parts(&entry, torch)?;
        let outputs = [&self.json, &self.csv, &self.markdown];
        outputs.into_iter().flatten().try_for_each(|path| check_writable(path))?;
        // Before minutes of work.
        let old = self.against.as_deref().map(read).transpose()?;
        engine::set_threads(threads)?;

        let folder = tempfile::tempdir()?;
        let (checkpoint, weights) = self.weights(&entry, folder.path())?;
        let checkpoint = Rc::new(checkpoint);
        let subject = Subject { entry: &entry, checkpoint: &checkpoint, device, threads };
        let encoders = parts.iter().any(|part| matches!(part, Part::Image | Part::Text));
        let ways = if encoders { ways(&subject, &engines, &precisions, &flavours)? } else { Vec::new() };
        let request = Request {
            multiply_adds: counts(&entry)?,
            entry: entry.clone(),
            checkpoint: Rc::clone(&checkpoint),
            weights,
            parts,
            ways,
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
            path.as_deref().map_or(Ok(()), |path| write_whole(path, text.as_bytes()))?;
        }
        print(&render(&result))?;
        if let Some(old) = &old {
            print(&Against { new: &result, old }.render())?;
        }
        Ok(Finding::Done)
    }

    fn engines(&self) -> Result<Vec<EngineChoice>> {
        let fastest = if cfg!(feature = "torch") { EngineChoice::Torch } else { EngineChoice::Rust };
        let named = self.engine.iter().map(|name| name.parse()).collect::<bench::Result<Vec<EngineChoice>>>()?;
        let named: Vec<EngineChoice> =
            named.into_iter().map(|choice| if choice == EngineChoice::Auto { fastest } else { choice }).collect();
        Ok(if named.is_empty() { vec![fastest] } else { named })
    }

    /// Those that are named, or those that can be measured.
    fn parts(&self, entry: &Entry, torch: bool) -> Result<Vec<Part>> {
        let files = self.data.is_some() || entry.data.drawn.is_some();
        let possible = |part: &Part| match part {
            Part::Training => torch,
            part => files || !part.needs_files(),
        };
        match self.parts.is_empty() {
            true => Ok(Part::ALL.into_iter().filter(possible).collect()),
            false => Ok(self.parts.iter().map(|name| name.parse()).collect::<bench::Result<_>>()?),
        }
    }

    /// The checkpoint, and what it is in words.
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
fn read(path: &Path) -> Result<timing::Timing> {
    let bytes = fs_err::read(path)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("`{}` is no result of `laps-zoo bench --json`", path.display()))
}
