//! `laps-zoo reproduce`

use std::{num::NonZeroUsize, path::PathBuf, rc::Rc};

use anyhow::Result;
use clap::Args;
use laps::{Backend, BackendRequest, Backends, OnnxBackend, SingleRank, Workload};
use laps_bench::{
    audit::{self, CaptionOrder, audit},
    files::write_atomic,
    reproduce::{PrecisionComparison, ReproduceRequest, render_losses, reproduce, table},
};
use laps_data::LongCaptions;
use laps_model::encoder::Device;
use laps_onnx::graph::GraphPrecision;

use crate::{
    distributed::{self, DistributedArgs},
    graphs, interrupt, progress,
    report::{CommandStatus, print_summary},
};

/// Evaluate a checkpoint and compare its recalls with the published ones
#[derive(Args)]
pub(crate) struct ReproduceArgs {
    /// Entry name, or path to an entry YAML file
    entry: String,
    /// Checkpoint (.safetensors or .pth) [default: the embedded one, or download the published one]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Root of the caption and image folders [default: the folder of the entry file]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    source: crate::data_source::DataSource,
    /// Split to evaluate [default: the entry's test split]
    #[arg(long)]
    split: Option<String>,
    /// Truncate captions that are longer than the text encoder has positions, and count them in the result
    #[arg(long)]
    truncate: bool,
    /// Encode every caption without padding, for a head whose caption vectors depend on it (d2s_vse)
    #[arg(long)]
    unpadded: bool,
    /// Evaluate only the first N images of the split and their captions
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Engine that computes the embeddings: auto, torch, rust or ort
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Folder of exported ONNX graphs; selects the engine ort [default: export them for this run]
    #[arg(long, value_name = "DIR")]
    graphs: Option<PathBuf>,
    /// With the engine ort, also evaluate these precisions (fp16, int8) and compare them with fp32
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "graphs")]
    precisions: Vec<String>,
    #[command(flatten)]
    providers: graphs::Providers,
    /// Device: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Batch size of the encoders, in images or captions
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: NonZeroUsize,
    /// Memory in MiB for computing similarities, not counting the embeddings and the matrix
    #[arg(long, value_name = "MIB", default_value = "1024")]
    memory_limit: NonZeroUsize,
    /// Largest accepted difference between a measured and a published recall, in points
    #[arg(long, value_name = "POINTS", default_value = "0.1", allow_negative_numbers = true)]
    tolerance: f64,
    /// Write the similarity matrix as safetensors: key `sims`, images x captions. Rerun the command to resume from
    /// FILE.partial
    #[arg(long, value_name = "FILE")]
    sims: Option<PathBuf>,
    /// Write the first 100 candidates of each query as a run file of TREC: images by their id, captions as ID#NUMBER
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// Write the result files of MTEB's tasks Flickr30kI2TRetrieval and Flickr30kT2IRetrieval to DIR
    #[arg(long, value_name = "DIR")]
    mteb: Option<PathBuf>,
    /// Write the result and its provenance as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also evaluate with captions shuffled within and between images, and look for side texts and for images of other splits
    #[arg(long)]
    audit: bool,
    #[command(flatten)]
    access: crate::fetching::NetworkArgs,
    #[command(flatten)]
    distributed: DistributedArgs,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

impl ReproduceArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        distributed::is_distributed()
            || graphs::needs_libtorch(&self.engine, &self.device, self.graphs.is_some() || self.providers.given())
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let process_group = self.distributed.process_group()?;
        let process_group = process_group.as_ref();
        let threads = self.threads.map_or_else(|| distributed::threads(process_group), NonZeroUsize::get);
        let device = self.device.parse::<Device>()?;
        let device = process_group.map_or(device, |group| group.device(device, backends.gpus()));
        // Rank 0 prints and writes.
        let is_first = process_group.is_none_or(|group| group.rank == 0);
        let quiet = self.quiet || !is_first;
        let selected = BackendRequest {
            engine: self.engine.parse()?,
            device,
            threads,
            graphs: self.graphs.clone(),
            session: self.providers.session("auto", device, threads)?,
            workload: Workload::Many,
        };
        graphs::check(&selected)?;
        let selected = selected.select(backends)?;
        let precisions = precisions(&self.precisions, selected.onnx.as_deref())?;
        let entry = self.source.apply(laps_hub::registry::find(&self.entry)?)?;
        let mut request = ReproduceRequest {
            entry: if self.unpadded { entry.without_padding()? } else { entry },
            checkpoint: self.checkpoint,
            data: self.data,
            split: self.split,
            long_captions: if self.truncate { LongCaptions::Truncate } else { LongCaptions::Refuse },
            caption_order: CaptionOrder::AsWritten,
            limit: self.limit,
            backend: selected.backend,
            backends,
            group: Rc::new(SingleRank),
            threads,
            batch_size: self.batch_size,
            tolerance: self.tolerance,
            memory_limit: self.memory_limit.get().saturating_mul(1 << 20),
            sims: self.sims,
            run: self.run,
            mteb: self.mteb,
        };
        request.check_options()?;
        if is_first {
            request.check_outputs(self.json.as_deref())?;
        }
        fetch(&mut request, self.access, quiet)?;
        if is_first {
            request.check()?;
        }
        request.group = distributed::join(process_group, backends, device)?;
        backends.set_threads(threads)?;
        let stop = interrupt::flag(interrupt::Deadline::Seconds);
        let progress = progress::choose(quiet);
        let mut result = reproduce(&request, &stop, progress.as_ref())?;
        let mut tables = String::new();
        for graphs in precisions.into_iter().map(Rc::new) {
            let backend = Rc::clone(&graphs) as Rc<dyn Backend>;
            let other = reproduce(
                &ReproduceRequest { backend, sims: None, run: None, mteb: None, ..request.clone() },
                &stop,
                progress.as_ref(),
            )?;
            let tolerance = graphs.precision().tolerance().rsum;
            let Some(comparison) = PrecisionComparison::new(&result, other, tolerance) else { continue };
            tables += &format!("\n{}", render_losses(&result, &comparison));
            if comparison.failed() {
                tables += &graphs.worst_nodes()?;
            }
            result.precisions.push(comparison);
        }
        if self.audit {
            result.audit = audit(&request, &result, &stop, progress.as_ref())?;
        }
        if is_first {
            if let Some(path) = &self.json {
                write_atomic(path, format!("{}\n", serde_json::to_string_pretty(&result)?).as_bytes())?;
            }
            let summary = [table::render(&result), tables, audit::render(&result.audit)].concat();
            print_summary(self.json.iter().chain(&request.run), &summary)?;
        }
        let failed = result.verdict.failed()
            || result.precisions.iter().any(PrecisionComparison::failed)
            || result.audit.iter().any(|check| check.passed == Some(false));
        Ok(if failed { CommandStatus::CheckFailed } else { CommandStatus::Success })
    }
}

/// Graphs in the other precisions of `--precisions`.
fn precisions(names: &[String], graphs: Option<&OnnxBackend>) -> Result<Vec<OnnxBackend>> {
    let refused = |expected: &str, found: &str| laps_bench::Error::Argument {
        argument: "--precisions",
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let Some(graphs) = graphs else { return Err(refused("the engine `ort`", "another engine").into()) };
    let parse = |name: &String| match name.parse() {
        Ok(GraphPrecision::Fp32) | Err(_) => Err(refused("`fp16`, `int8` or `fp16,int8`", name).into()),
        Ok(precision) => Ok(graphs.in_precision(precision)),
    };
    names.iter().map(parse).collect()
}

/// Downloads what is missing, smallest first: captions and vocabulary, then the checkpoint, then the images.
fn fetch(request: &mut ReproduceRequest, access: crate::fetching::NetworkArgs, quiet: bool) -> Result<()> {
    use crate::fetching;

    if request.entry.data.drawn.is_none() && request.entry.checkpoint.is_some() {
        // Fail before anything large is downloaded.
        request.entry.data_paths(request.data.as_deref())?;
    }
    let split = request.split.as_deref().unwrap_or(&request.entry.data.test);
    fetching::texts(&request.entry, request.data.as_deref(), &[split], access, quiet)?;
    if request.checkpoint.is_none() {
        request.checkpoint = fetching::checkpoint(&request.entry, access, quiet)?;
    }
    let split = request.split.as_deref().unwrap_or(&request.entry.data.test);
    fetching::images(&request.entry, request.data.as_deref(), &[split], access, quiet)
}
