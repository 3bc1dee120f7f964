//! `laps-zoo export`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Result;
use clap::Args;
use laps::{Backend, Backends, EngineChoice, OnnxBackend, find_vocabulary, open_checkpoint};
use laps_bench::{
    machine::processors,
    reproduce::{self, PrecisionComparison, Reproduction, reproduce},
};
use laps_model::encoder::Device;
use laps_onnx::{
    graph::{Flavour, GraphPrecision, Opset, Target},
    package::{self, ExportRequest, Exported, export},
    runtime::{ExecutionDevice, SessionOptions},
};

use crate::{
    graphs::Providers,
    interrupt, progress,
    report::{CommandStatus, print},
};

/// Export an entry to ONNX, and compare the graphs with the model
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Entry name, or path to an entry YAML file
    entry: String,
    /// Export to ONNX, the only supported format
    #[arg(long, required = true)]
    onnx: bool,
    /// Checkpoint (.safetensors or .pth)
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// WordPiece vocabulary to include in the folder [default: the vocabulary of the entry's data, if present]
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// Folder to create; it must not exist [default: NAME-FLAVOUR-PRECISION]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Operators: portable (ai.onnx only) or ort (with fused operators of ONNX Runtime) [default: portable; ort for ViT
    /// with --ep cuda]
    #[arg(long)]
    flavour: Option<String>,
    /// Precision: fp32, fp16 or int8
    #[arg(long, default_value = "fp32")]
    precision: String,
    /// ONNX opset version, 17 to 23
    #[arg(long, value_name = "N", default_value = "18")]
    opset: u32,
    /// Evaluate the entry with and without the graphs, and compare the recalls
    #[arg(long)]
    validate: bool,
    /// Root of the caption and image folders, for --validate and the vocabulary [default: the folder of the entry file]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    source: crate::data_source::DataSource,
    /// Split for --validate [default: the entry's test split]
    #[arg(long)]
    split: Option<String>,
    /// Validate only on the first N images of the split and their captions
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    #[command(flatten)]
    providers: Providers,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

impl ExportArgs {
    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let precision = self.precision.parse::<GraphPrecision>()?;
        let entry = self.source.apply(laps_hub::registry::find(&self.entry)?)?;
        // The comparison with the golden tensors always runs on the CPU; the golden tensors have their own sizes.
        let device = if self.providers.given() { Device::Auto } else { Device::Cpu };
        let options = self.providers.options("cpu", device, threads)?;
        let flavour = match &self.flavour {
            Some(flavour) => flavour.parse::<Flavour>()?,
            None => options.device.provider().flavour(entry.model.image.is_windowed()),
        };
        let target = Target { flavour, opset: Opset::new(self.opset)? };
        let out = self.out.clone().unwrap_or_else(|| format!("{}-{}-{precision}", entry.name, target.flavour).into());
        package::check_free(&out)?;
        if let ExecutionDevice::Gpu(provider, _) = options.device {
            provider.check(target.flavour, precision, entry.model.image.is_windowed())?;
        }
        backends.set_threads(threads)?;
        let (checkpoint, note) = open_checkpoint(&entry, self.checkpoint.as_deref())?;
        let vocabulary = find_vocabulary(&entry, self.vocab.as_deref(), self.data.as_deref())?;
        let checkpoint = Rc::new(checkpoint);
        let request = ExportRequest { entry, checkpoint, target, precision, threads, vocabulary };
        let exported = export(&request, &out)?;
        print(&package::render(&exported, &out, note.as_deref()))?;
        let mut failed = !exported.out_of_tolerance.is_empty();
        if failed {
            print(&package::worst_nodes(&request, &exported.manifest)?)?;
        }
        if self.validate {
            failed |= self.validate(backends, &request, (&exported, &out), options)?;
        }
        Ok(if failed { CommandStatus::CheckFailed } else { CommandStatus::Success })
    }

    /// Returns true if the graphs lose more rSum than the tolerance allows.
    fn validate(
        &self,
        backends: Backends,
        request: &ExportRequest,
        (exported, folder): (&Exported, &Path),
        options: SessionOptions,
    ) -> Result<bool> {
        let threads = options.threads;
        let graphs = OnnxBackend::new(Some(folder.to_owned()), exported.manifest.precision, options);
        let stop = interrupt::flag(interrupt::Deadline::Seconds);
        let run = |backend: Rc<dyn Backend>| {
            let request = reproduce::ReproduceRequest {
                checkpoint: self.checkpoint.clone(),
                data: self.data.clone(),
                split: self.split.clone(),
                limit: self.limit,
                backend,
                backends,
                threads,
                ..reproduce::ReproduceRequest::new(request.entry.clone())
            };
            reproduce(&request, &stop, progress::choose(self.quiet).as_ref())
        };
        let definition: Reproduction = run(backends.on_checkpoint(EngineChoice::Auto, Device::Cpu)?)?;
        let graphs: Reproduction = run(Rc::new(graphs))?;
        let manifest = &exported.manifest;
        let tolerance = manifest.precision.tolerance().rsum;
        let Some(comparison) = PrecisionComparison::new(&definition, graphs, tolerance) else { return Ok(false) };
        print(&reproduce::render_losses(&definition, &comparison))?;
        if comparison.failed() {
            print(&package::worst_nodes(request, manifest)?)?;
        }
        Ok(comparison.failed())
    }
}
