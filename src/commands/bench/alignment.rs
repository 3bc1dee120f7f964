//! `laps-zoo bench alignment`

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use clap::Args;
use laps::Backends;
use laps_bench::{
    alignment::{AlignmentEngine, AlignmentRequest, measure, render},
    files::{check_writable, write_atomic},
    machine::processors,
};
use laps_model::encoder::Device;

use crate::{
    progress,
    report::{CommandStatus, print_summary},
};

/// Benchmark the similarity engine on random embeddings: time per pair, operations per second, memory
#[derive(Args)]
pub(crate) struct AlignmentArgs {
    /// Entry that gives the sizes (entry name, or path to an entry YAML file)
    #[arg(long)]
    entry: String,
    /// Number of images
    #[arg(long, value_name = "N")]
    images: NonZeroUsize,
    /// Number of captions; their lengths are distributed as in Flickr30K
    #[arg(long, value_name = "N")]
    captions: NonZeroUsize,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Memory in MiB that the engine may use, not counting its inputs
    #[arg(long, value_name = "MIB", default_value = "1024")]
    memory_limit: NonZeroUsize,
    /// Random seed of the embeddings, lengths and weights
    #[arg(long, default_value = "7")]
    seed: u64,
    /// Engine: cpu or torch
    #[arg(long, default_value = "cpu")]
    engine: String,
    /// Device of the engine torch: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Generate image embeddings on demand instead of keeping them in memory; the time includes generating them
    #[arg(long)]
    images_on_the_fly: bool,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

impl AlignmentArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.engine == "torch"
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let request = AlignmentRequest {
            entry: laps_hub::registry::find(&self.entry)?,
            images: self.images,
            captions: self.captions,
            threads,
            memory_limit: self.memory_limit.get().saturating_mul(1 << 20),
            seed: self.seed,
            engine: self.engine.parse::<AlignmentEngine>()?,
            device: self.device.parse::<Device>()?,
            backends,
            images_on_the_fly: self.images_on_the_fly,
        };
        self.json.as_deref().into_iter().try_for_each(check_writable)?;
        backends.set_threads(threads)?;
        let result = measure(&request, progress::choose(self.quiet).as_ref())?;
        if let Some(path) = &self.json {
            write_atomic(path, format!("{}\n", serde_json::to_string_pretty(&result)?).as_bytes())?;
        }
        print_summary(&self.json, &render(&result))?;
        Ok(CommandStatus::Success)
    }
}
