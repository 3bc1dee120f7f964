//! `laps-zoo bench alignment`

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use bench::{
    alignment::{AlignmentEngine, Request, measure, render},
    engine,
    files::{check_writable, write_whole},
    machine::processors,
};
use clap::Args;
use zoo::encoder::Device;

use crate::{
    progress,
    report::{Finding, print},
};

/// Measure similarities of random embeddings: time of a pair, operations a second, memory
#[derive(Args)]
pub(crate) struct Alignment {
    /// Name of an entry, or path of an entry file: its sizes are taken
    #[arg(long)]
    entry: String,
    /// Images
    #[arg(long, value_name = "N")]
    images: NonZeroUsize,
    /// Captions; their lengths are distributed as those of Flickr30K
    #[arg(long, value_name = "N")]
    captions: NonZeroUsize,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Memory in MiB that the engine may take beside its inputs
    #[arg(long, value_name = "MIB", default_value = "1024")]
    memory_limit: NonZeroUsize,
    /// Seed of embeddings, lengths and weights
    #[arg(long, default_value = "7")]
    seed: u64,
    /// What computes: cpu, torch
    #[arg(long, default_value = "cpu")]
    engine: String,
    /// Where the engine `torch` computes: auto, cpu, cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Make embeddings of images when they are read instead of holding them; the time includes making them
    #[arg(long)]
    images_on_the_fly: bool,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

impl Alignment {
    pub(crate) fn run(self) -> Result<Finding> {
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let request = Request {
            entry: zoo::registry::find(&self.entry)?,
            images: self.images,
            captions: self.captions,
            threads,
            memory_limit: self.memory_limit.get().saturating_mul(1 << 20),
            seed: self.seed,
            engine: self.engine.parse::<AlignmentEngine>()?,
            device: self.device.parse::<Device>()?,
            images_on_the_fly: self.images_on_the_fly,
        };
        self.json.as_deref().into_iter().try_for_each(check_writable)?;
        engine::set_threads(threads)?;
        let result = measure(&request, progress::choose(self.quiet).as_ref())?;
        if let Some(path) = &self.json {
            write_whole(path, format!("{}\n", serde_json::to_string_pretty(&result)?).as_bytes())?;
        }
        print(&render(&result))?;
        Ok(Finding::Done)
    }
}
