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
    reproduce::{self, Reproduction, open_checkpoint, reproduce},
};
use clap::Args;
use export::{
    graph::{Flavour, Opset, Target},
    package::{self, Exported, Precision, Request, export},
};
use zoo::{encoder::Device, registry::Entry};

use crate::{
    graphs::Graphs,
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
    /// Operators: portable (ai.onnx alone) or ort (with the fused ones of ONNX Runtime)
    #[arg(long, default_value = "portable")]
    flavour: String,
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
        let target = Target { flavour: self.flavour.parse::<Flavour>()?, opset: Opset::new(self.opset)? };
        let precision = self.precision.parse::<Precision>()?;
        let entry = zoo::registry::find(&self.entry)?;
        let out = self.out.clone().unwrap_or_else(|| format!("{}-{}-{precision}", entry.name, target.flavour).into());
        package::check_free(&out)?;
        engine::set_threads(threads)?;
        let (checkpoint, note) = open_checkpoint(&entry, self.checkpoint.as_deref())?;
        let vocabulary = vocabulary::find(&entry, self.vocab.as_deref(), self.data.as_deref())?;
        let vocabulary = vocabulary.map(|found| found.bytes);
        let checkpoint = Rc::new(checkpoint);
        let request = Request { entry: entry.clone(), checkpoint, target, precision, threads, vocabulary };
        let exported = export(&request, &out)?;
        print(&package::render(&exported, &out, note.as_deref()))?;
        let mut failed = !exported.outside.is_empty();
        if self.validate {
            failed |= self.validate(&entry, &exported, &out, threads)?;
        }
        Ok(if failed { Finding::Failed } else { Finding::Done })
    }

    /// Whether the graphs lose more of the recalls than they may.
    fn validate(&self, entry: &Entry, exported: &Exported, folder: &Path, threads: usize) -> Result<bool> {
        let graphs = Graphs { folder: Some(folder.to_owned()), device: Device::Cpu, threads };
        let stop = interrupt::flag()?;
        let [eager, graphs] = [None, Some(Rc::new(graphs) as Rc<dyn EncoderSource>)].map(|encoders| {
            let engine = if encoders.is_some() { EngineChoice::Ort } else { EngineChoice::Auto };
            let request = reproduce::Request {
                checkpoint: self.checkpoint.clone(),
                data: self.data.clone(),
                split: self.split.clone(),
                limit: self.limit,
                encoders,
                device: Device::Cpu,
                threads,
                ..reproduce::Request::new(entry.clone(), engine)
            };
            reproduce(&request, &stop, progress::choose(self.quiet).as_ref())
        });
        let (eager, graphs): (Reproduction, Reproduction) = (eager?, graphs?);
        let tolerance = exported.manifest.precision.tolerance().rsum;
        let losses = reproduce::losses(&eager, &graphs);
        print(&reproduce::render_losses(&losses, [&eager, &graphs], tolerance))?;
        Ok(losses.iter().any(|loss| loss.points() > tolerance))
    }
}
