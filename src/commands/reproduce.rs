//! `laps-zoo reproduce`

use std::{num::NonZeroUsize, path::PathBuf, rc::Rc};

use anyhow::Result;
use bench::{
    engine::{self, EncoderSource},
    files::write_whole,
    machine::processors,
    reproduce::{Beside, Request, render_losses, reproduce, table},
};
use clap::Args;
use export::package::Precision;
use zoo::encoder::Device;

use crate::{
    graphs::{self, Graphs},
    interrupt, progress,
    report::{Finding, print},
};

/// Evaluate a checkpoint and compare its recalls with the published ones
#[derive(Args)]
pub(crate) struct Reproduce {
    /// Name of an entry, or path of an entry file
    entry: String,
    /// The checkpoint: .safetensors or .pth [default: the published one, fetched]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Root of the caption and image folders [default: the folder of the entry file]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Split to evaluate [default: the entry's test split]
    #[arg(long)]
    split: Option<String>,
    /// Evaluate the first N images of the split and their captions only
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// What computes the embeddings: auto, torch, rust, ort
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Folder of exported graphs for the engine ort, which auto takes then [default: export anew]
    #[arg(long, value_name = "DIR")]
    graphs: Option<PathBuf>,
    /// With the engine ort: evaluate these precisions too, fp16 and int8, and compare them with fp32
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "graphs")]
    precisions: Vec<String>,
    #[command(flatten)]
    providers: graphs::Providers,
    /// Where: auto, cpu, cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Images, and captions, encoded at a time
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: NonZeroUsize,
    /// Memory in MiB for computing similarities, beside the embeddings and the matrix
    #[arg(long, value_name = "MIB", default_value = "1024")]
    memory_limit: NonZeroUsize,
    /// Largest difference of a recall to a published one, in points
    #[arg(long, value_name = "POINTS", default_value = "0.1", allow_negative_numbers = true)]
    tolerance: f64,
    /// Write the similarity matrix as safetensors: key `sims`, images x captions. It grows in FILE.partial; the same
    /// command goes on with what one that was ended left there
    #[arg(long, value_name = "FILE")]
    sims: Option<PathBuf>,
    /// Write the result with its provenance as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[cfg(feature = "fetch")]
    #[command(flatten)]
    access: crate::fetching::Access,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

impl Reproduce {
    pub(crate) fn run(self) -> Result<Finding> {
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let device = self.device.parse::<Device>()?;
        let engine = graphs::for_data_set(self.engine.parse()?, device)?;
        let (engine, graphs) = graphs::choose(engine, self.graphs, &self.providers, device, threads)?;
        let precisions = precisions(&self.precisions, graphs.as_deref())?;
        let encoders = graphs.clone().map(|graphs| graphs as Rc<dyn EncoderSource>);
        let mut request = Request {
            entry: zoo::registry::find(&self.entry)?,
            checkpoint: self.checkpoint,
            data: self.data,
            split: self.split,
            limit: self.limit,
            engine,
            encoders,
            device,
            threads,
            batch_size: self.batch_size,
            tolerance: self.tolerance,
            memory_limit: self.memory_limit.get().saturating_mul(1 << 20),
            sims: self.sims,
        };
        request.check_options()?;
        #[cfg(feature = "fetch")]
        fetch(&mut request, self.access, self.quiet)?;
        #[cfg(not(feature = "fetch"))]
        let _ = &mut request;
        request.check(self.json.as_deref().into_iter())?;
        engine::set_threads(threads)?;
        let stop = interrupt::flag()?;
        let progress = progress::choose(self.quiet);
        let mut result = reproduce(&request, &stop, progress.as_ref())?;
        let mut tables = String::new();
        for graphs in precisions.into_iter().map(Rc::new) {
            let encoders = Some(Rc::clone(&graphs) as Rc<dyn EncoderSource>);
            let other = reproduce(&Request { encoders, sims: None, ..request.clone() }, &stop, progress.as_ref())?;
            let beside = Beside::new(&result, other, graphs.precision().tolerance().rsum);
            tables += &format!("\n{}", render_losses(&result, &beside));
            if beside.failed() {
                tables += &graphs.at_fault()?;
            }
            result.beside.push(beside);
        }
        if let Some(path) = &self.json {
            write_whole(path, format!("{}\n", serde_json::to_string_pretty(&result)?).as_bytes())?;
        }
        print(&table::render(&result))?;
        print(&tables)?;
        let failed = result.verdict.failed() || result.beside.iter().any(Beside::failed);
        Ok(if failed { Finding::Failed } else { Finding::Done })
    }
}

/// The graphs in further precisions.
fn precisions(names: &[String], graphs: Option<&Graphs>) -> Result<Vec<Graphs>> {
    let refused = |expected: &str, found: &str| bench::Error::Option {
        option: "--precisions",
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let Some(graphs) = graphs else { return Err(refused("the engine `ort`", "another one").into()) };
    let parse = |name: &String| match name.parse() {
        Ok(Precision::Fp32) | Err(_) => Err(refused("`fp16`, `int8`, or both with a comma between", name).into()),
        Ok(precision) => Ok(graphs.in_precision(precision)),
    };
    names.iter().map(parse).collect()
}

/// Fetches what is missing, the small before the large: captions and vocabulary, the checkpoint, images.
#[cfg(feature = "fetch")]
fn fetch(request: &mut Request, access: crate::fetching::Access, quiet: bool) -> Result<()> {
    use crate::fetching;

    if request.entry.data.drawn.is_none() && request.entry.checkpoint.is_some() {
        // Said before anything large is fetched.
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
