//! `laps-zoo export`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Result;
use bench::{
    engine::{self, EncoderSource, EngineChoice},
    machine::processors,
    reproduce::{self, Beside, Reproduction, open_checkpoint, reproduce},
};
use clap::Args;
use export::{
    graph::{Flavour, Opset, Target},
    package::{self, Exported, Precision, Request, export},
    runtime::{Place, SessionOptions},
};
use zoo::encoder::Device;

use crate::{
    graphs::{Graphs, Providers},
    interrupt, progress,
    report::{Finding, print},
    vocabulary,
};

/// Export an entry to ONNX, and compare the graphs with the model
#[derive(Args)]
pub(crate) struct Export {
    /// Name of an entry, or path of an entry file
    entry: String,
    /// As ONNX, the one form there is
    #[arg(long, required = true)]
    onnx: bool,
    /// The checkpoint: .safetensors or .pth
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The WordPiece vocabulary, to be part of the folder [default: that of the entry's data, where it is at hand]
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// Folder to write, which must not be there yet [default: NAME-FLAVOUR-PRECISION]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Operators: portable (ai.onnx alone) or ort (with the fused ones of ONNX Runtime) [default: portable; for ViT ort
    /// with --ep cuda]
    #[arg(long)]
    flavour: Option<String>,
    /// Numbers: fp32, fp16, int8
    #[arg(long, default_value = "fp32")]
    precision: String,
    /// Version of the operators, 17 to 23
    #[arg(long, value_name = "N", default_value = "18")]
    opset: u32,
    /// Evaluate the entry with the graphs and without, and compare the recalls
    #[arg(long)]
    validate: bool,
    /// Root of the caption and image folders, for --validate and the vocabulary [default: the folder of the entry file]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Split to validate on [default: the entry's test split]
    #[arg(long)]
    split: Option<String>,
    /// Validate on the first N images of the split and their captions only
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    #[command(flatten)]
    providers: Providers,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

impl Export {
    pub(crate) fn run(self) -> Result<Finding> {
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let precision = self.precision.parse::<Precision>()?;
        let entry = zoo::registry::find(&self.entry)?;
        // The comparison with the golden tensors, which have sizes of their own, is always that of the processor.
        let device = if self.providers.given() { Device::Auto } else { Device::Cpu };
        let options = self.providers.options("cpu", device, threads)?;
        let flavour = match &self.flavour {
            Some(flavour) => flavour.parse::<Flavour>()?,
            None => options.place.provider().flavour(entry.model.image.is_windowed()),
        };
        let target = Target { flavour, opset: Opset::new(self.opset)? };
        let out = self.out.clone().unwrap_or_else(|| format!("{}-{}-{precision}", entry.name, target.flavour).into());
        package::check_free(&out)?;
        if let Place::Gpu(provider, _) = options.place {
            provider.check(target.flavour, precision, entry.model.image.is_windowed())?;
        }
        engine::set_threads(threads)?;
        let (checkpoint, note) = open_checkpoint(&entry, self.checkpoint.as_deref())?;
        let vocabulary = vocabulary::find(&entry, self.vocab.as_deref(), self.data.as_deref())?;
        let vocabulary = vocabulary.map(|found| found.bytes);
        let checkpoint = Rc::new(checkpoint);
        let request = Request { entry, checkpoint, target, precision, threads, vocabulary };
        let exported = export(&request, &out)?;
        print(&package::render(&exported, &out, note.as_deref()))?;
        let mut failed = !exported.outside.is_empty();
        if failed {
            print(&package::at_fault(&request, &exported.manifest)?)?;
        }
        if self.validate {
            failed |= self.validate(&request, (&exported, &out), options)?;
        }
        Ok(if failed { Finding::Failed } else { Finding::Done })
    }

    /// Whether the graphs lose more of the recalls than they may.
    fn validate(
        &self,
        request: &Request,
        (exported, folder): (&Exported, &Path),
        options: SessionOptions,
    ) -> Result<bool> {
        let threads = options.threads;
        let graphs = Rc::new(Graphs::new(Some(folder.to_owned()), exported.manifest.precision, options));
        let stop = interrupt::flag()?;
        let [eager, graphs] = [None, Some(graphs as Rc<dyn EncoderSource>)].map(|encoders| {
            let engine = if encoders.is_some() { EngineChoice::Ort } else { EngineChoice::Auto };
            let request = reproduce::Request {
                checkpoint: self.checkpoint.clone(),
                data: self.data.clone(),
                split: self.split.clone(),
                limit: self.limit,
                encoders,
                device: Device::Cpu,
                threads,
                ..reproduce::Request::new(request.entry.clone(), engine)
            };
            reproduce(&request, &stop, progress::choose(self.quiet).as_ref())
        });
        let (eager, graphs): (Reproduction, Reproduction) = (eager?, graphs?);
        let manifest = &exported.manifest;
        let beside = Beside::new(&eager, graphs, manifest.precision.tolerance().rsum);
        print(&reproduce::render_losses(&eager, &beside))?;
        if beside.failed() {
            print(&package::at_fault(request, manifest)?)?;
        }
        Ok(beside.failed())
    }
}
