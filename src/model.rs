//! The model that `embed`, `score`, `index` and `search` use: its options, and how it is opened.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use clap::Args;
use laps::{BackendRequest, Backends, Model, ModelBuilder, ProcessGroup, Workload, find_vocabulary};
use laps_data::LongCaptions;
use laps_files::Progress;
use laps_hub::{registry, store::data_set};

use crate::{
    distributed, fetching,
    graphs::{self, Providers},
    interrupt, progress,
};

// Not a doc comment: clap would use it as the help text of every command that flattens these options.
#[derive(Args)]
pub(crate) struct ModelOptions {
    /// Entry name, or path to an entry YAML file; not needed with --graphs
    #[arg(long, value_name = "ENTRY")]
    pub(crate) entry: Option<String>,
    /// Checkpoint (.safetensors or .pth) [default: the embedded one, or download the published one]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Folder of exported ONNX graphs (engine ort); without --entry, everything is read from it
    #[arg(long, value_name = "DIR")]
    pub(crate) graphs: Option<PathBuf>,
    /// WordPiece vocabulary [default: the one of the graphs or the entry]
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// Engine that computes the embeddings: auto, torch, rust or ort
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Device: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    #[command(flatten)]
    providers: Providers,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Batch size of the encoders, in images or captions
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: NonZeroUsize,
    /// Truncate captions that are longer than the text encoder has positions, and count them
    #[arg(long)]
    truncate: bool,
    #[command(flatten)]
    access: fetching::NetworkArgs,
    /// Hide progress output
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl ModelOptions {
    /// Whether the options can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        graphs::needs_libtorch(&self.engine, &self.device, self.graphs.is_some() || self.providers.given())
    }

    /// Opens the model, and the progress output of its work.
    ///
    /// Invalid requests fail before anything large is read or downloaded.
    pub(crate) fn open(mut self, backends: Backends, workload: Workload) -> Result<(Model, Box<dyn Progress>)> {
        self.quiet |= !distributed::is_first();
        let group = ProcessGroup::from_environment()?;
        let threads = self.threads.map_or_else(|| distributed::threads(group.as_ref()), NonZeroUsize::get);
        let device = self.device.parse()?;
        let device = group.map_or(device, |group| group.device(device, backends.gpus()));
        let request = BackendRequest {
            engine: self.engine.parse()?,
            device,
            threads,
            graphs: self.graphs.clone(),
            session: self.providers.session("auto", device, threads)?,
            workload,
        };
        graphs::check(&request)?;
        let mut builder = match (&self.entry, &self.graphs) {
            (Some(name), _) => self.entry(name, &request, backends)?,
            (None, Some(folder)) => Model::from_graphs(folder),
            (None, None) => {
                return Err(laps_bench::Error::Argument {
                    argument: "--entry",
                    expected: "the name of an entry, the path of an entry file, or a folder given as --graphs"
                        .to_owned(),
                    found: "neither".to_owned(),
                }
                .into());
            }
        };
        backends.set_threads(threads)?;
        builder = builder
            .engine(request.engine)
            .device(device)
            .threads(threads)
            .batch_size(self.batch_size)
            .workload(workload)
            .backends(backends)
            .long_captions(if self.truncate { LongCaptions::Truncate } else { LongCaptions::Refuse })
            .stop(interrupt::flag(interrupt::Deadline::Seconds));
        if let Some(vocabulary) = &self.vocab {
            builder = builder.vocabulary(vocabulary);
        }
        if let Some(folder) = &self.graphs {
            builder = builder.graphs(folder);
        }
        if let Some(session) = request.session {
            builder = builder.session(session);
        }
        let model = builder.open().map_err(name_vocabulary_option)?;
        Ok((model, progress::choose(self.quiet)))
    }

    /// The builder for an entry, after whatever it lacks was downloaded.
    fn entry(&self, name: &str, request: &BackendRequest, backends: Backends) -> Result<ModelBuilder> {
        let entry = registry::find(name)?;
        request.select(backends)?.backend.check()?;
        let mut builder = Model::builder(name);
        if find_vocabulary(&entry, self.vocab.as_deref(), None)?.is_none() {
            if data_set(&entry).is_none() {
                return Err(name_vocabulary_option(laps::Error::NoVocabulary { entry: entry.name }));
            }
            builder = builder.vocabulary(fetching::vocabulary(&entry, self.access, self.quiet)?);
        }
        let checkpoint = match &self.checkpoint {
            Some(path) => Some(path.clone()),
            None => fetching::checkpoint(&entry, self.access, self.quiet)?,
        };
        Ok(match checkpoint {
            Some(path) => builder.checkpoint(path),
            None => builder,
        })
    }
}

/// Says which option gives the vocabulary that is missing.
fn name_vocabulary_option(error: laps::Error) -> anyhow::Error {
    match error {
        laps::Error::NoVocabulary { entry } => laps_bench::Error::Argument {
            argument: "--vocab",
            expected: format!("the WordPiece vocabulary of the text encoder of `{entry}`, one token per line"),
            found: "none".to_owned(),
        }
        .into(),
        other => other.into(),
    }
}

/// One line with entry, engine, instruction set, and the number of captions that were truncated, if any were; and a line for
/// each note about the engine.
pub(crate) fn summary_line(model: &Model) -> String {
    let similarity = model.similarity().description();
    let truncated = truncated(model).map_or_else(String::new, |count| format!("; truncated captions: {count}"));
    let notes: String = model.notes().iter().map(|note| format!("\nnote: {note}")).collect();
    format!("{}, engine {}; similarities {similarity}{truncated}{notes}", model.used().entry, model.engine())
}

/// Number of captions that were truncated, if any were.
pub(crate) fn truncated(model: &Model) -> Option<usize> {
    Some(model.tokenizer().truncated()).filter(|&count| count > 0)
}
