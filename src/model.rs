//! The model that `embed`, `score`, `index` and `search` use: which one, and what computes it.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context, Result};
use bench::{
    engine::{self, EncoderSource, EngineChoice, EngineUsed},
    machine::processors,
    progress::Progress,
    reproduce::open_checkpoint,
};
use clap::Args;
use export::package::Package;
use zoo::{
    data::{Tokenizer, image::Preprocessing},
    encoder::{Device, Encoder},
    registry::{self, Entry},
    retrieval::similarity::{AggregationWeights, AlignmentConfig, Engine, EngineOptions},
    search::{Encoding, ModelUsed},
};

use crate::{
    graphs::{self, Graphs},
    interrupt, progress,
    vocabulary::{self, Vocabulary},
};

// A documentation comment here would become that of every command that has the options.
#[derive(Args)]
pub(crate) struct Choice {
    /// Name of an entry, or path of an entry file; --graphs alone will do too
    #[arg(long, value_name = "ENTRY")]
    pub(crate) entry: Option<String>,
    /// The checkpoint: .safetensors or .pth [default: the embedded or the published one]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Folder of exported graphs for the engine ort; without --entry all else is taken from it
    #[arg(long, value_name = "DIR")]
    pub(crate) graphs: Option<PathBuf>,
    /// The WordPiece vocabulary [default: that of the graphs or of the entry]
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// What computes the embeddings: auto, torch, rust, ort
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Where: auto, cpu, cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    #[command(flatten)]
    providers: graphs::Providers,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Images, and captions, encoded at a time
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: NonZeroUsize,
    #[cfg(feature = "fetch")]
    #[command(flatten)]
    access: crate::fetching::Access,
    /// No progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// A model that is ready to be used.
pub(crate) struct Model {
    /// What decides which embeddings come out.
    pub(crate) used: ModelUsed,
    /// What computes the embeddings.
    pub(crate) engine: EngineUsed,
    /// What computes the similarities.
    pub(crate) similarity: Engine,
    /// What is done to an image.
    pub(crate) preprocessing: Preprocessing,
    /// Set when the user asks to stop.
    pub(crate) stop: Arc<AtomicBool>,
    /// What is told of the work.
    pub(crate) progress: Box<dyn Progress>,
    encoder: Box<dyn Encoder>,
    tokenizer: Tokenizer,
    longest: usize,
    batch: NonZeroUsize,
    threads: usize,
}

/// What an entry with its checkpoint, or a folder of graphs, comes to.
struct Parts {
    entry: String,
    config_sha256: String,
    checkpoint_sha256: String,
    encoder: Box<dyn Encoder>,
    engine: EngineUsed,
    alignment: (AlignmentConfig, AggregationWeights),
    preprocessing: Preprocessing,
    vocabulary: Vocabulary,
    /// Entries of the vocabulary and tokens of a caption at most.
    text: [usize; 2],
}

impl Choice {
    /// Opens the model.
    ///
    /// Everything that can be wrong with the request is said before anything large is read.
    pub(crate) fn open(self) -> Result<Model> {
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let choice = self.engine.parse::<EngineChoice>()?;
        let device = self.device.parse::<Device>()?;
        let parts = match (&self.entry, &self.graphs) {
            (Some(name), _) => self.of_entry(registry::find(name)?, choice, device, threads)?,
            (None, Some(folder)) => {
                // The folder decides for the engine; any other is refused.
                let (_, graphs) = graphs::choose(choice, Some(folder.clone()), &self.providers, device, threads)?;
                self.of_graphs(folder, graphs, threads)?
            }
            (None, None) => {
                return Err(bench::Error::Option {
                    option: "--entry",
                    expected: "the name of an entry, the path of an entry file, or a folder given as --graphs"
                        .to_owned(),
                    found: "neither".to_owned(),
                }
                .into());
            }
        };
        let tokenizer = Tokenizer::read(&parts.vocabulary.path, parts.vocabulary.bytes).map_err(zoo::Error::from)?;
        let [entries, longest] = parts.text;
        tokenizer.check_fits(entries).map_err(zoo::Error::from)?;
        let (sizes, weights) = parts.alignment;
        let engine = match &parts.engine.graphs {
            Some(graphs) => format!("{}: {graphs}", parts.engine.name),
            None => parts.engine.name.to_string(),
        };
        Ok(Model {
            used: ModelUsed {
                entry: parts.entry,
                config_sha256: parts.config_sha256,
                checkpoint_sha256: parts.checkpoint_sha256,
                engine,
            },
            similarity: Engine::new(sizes, &weights, EngineOptions { threads, ..EngineOptions::default() })?,
            engine: parts.engine,
            preprocessing: parts.preprocessing,
            stop: interrupt::flag()?,
            progress: progress::choose(self.quiet),
            encoder: parts.encoder,
            tokenizer,
            longest,
            batch: self.batch_size,
            threads,
        })
    }

    fn of_entry(&self, entry: Entry, choice: EngineChoice, device: Device, threads: usize) -> Result<Parts> {
        let (choice, encoders) = graphs::choose(choice, self.graphs.clone(), &self.providers, device, threads)?;
        match &encoders {
            Some(source) => source.check()?,
            None => engine::check(choice, device)?,
        }
        let vocabulary = self.vocabulary(&entry)?;
        let checkpoint = self.checkpoint(&entry)?;
        engine::set_threads(threads)?;
        let (checkpoint, _) = open_checkpoint(&entry, checkpoint.as_deref())?;
        let checkpoint_sha256 = checkpoint.sha256().map_err(zoo::Error::from)?;
        let checkpoint = Rc::new(checkpoint);
        let weights = AggregationWeights::load(|name| Ok(checkpoint.read(name)?))?;
        let (encoder, engine) = match &encoders {
            Some(source) => source.open(&entry, &checkpoint, &checkpoint_sha256)?,
            None => engine::open(choice, device, &entry.model, checkpoint)?,
        };
        Ok(Parts {
            config_sha256: entry.config_sha256,
            checkpoint_sha256,
            encoder,
            engine,
            alignment: (AlignmentConfig::of(&entry.model), weights),
            preprocessing: Preprocessing::imagenet(entry.model.image.image_size()),
            vocabulary,
            text: [entry.model.text.vocab_size, entry.model.text.max_position_embeddings],
            entry: entry.name,
        })
    }

    fn of_graphs(&self, folder: &Path, graphs: Option<Rc<Graphs>>, threads: usize) -> Result<Parts> {
        let package = Package::open(folder)?;
        let alignment = package.alignment()?;
        let vocabulary = match self.vocab.clone().or_else(|| package.vocabulary()) {
            Some(path) => Vocabulary::read(&path)?,
            None => return Err(no_vocabulary(&folder.display().to_string()).into()),
        };
        engine::set_threads(threads)?;
        let graphs = graphs.context("a folder of graphs needs the engine `ort`")?;
        let (encoder, engine) = graphs.open_package(&package).map_err(graphs::failed)?;
        let manifest = package.manifest;
        Ok(Parts {
            entry: manifest.entry,
            config_sha256: manifest.config_sha256,
            checkpoint_sha256: manifest.checkpoint_sha256,
            encoder: Box::new(encoder),
            engine,
            alignment,
            preprocessing: manifest.image,
            vocabulary,
            text: [manifest.text.vocabulary, manifest.text.longest],
        })
    }

    fn vocabulary(&self, entry: &Entry) -> Result<Vocabulary> {
        if let Some(vocabulary) = vocabulary::find(entry, self.vocab.as_deref(), None)? {
            return Ok(vocabulary);
        }
        #[cfg(feature = "fetch")]
        if zoo::store::data_set(entry).is_some() {
            return Vocabulary::read(&crate::fetching::vocabulary(self.access, self.quiet)?);
        }
        Err(no_vocabulary(&entry.name).into())
    }

    /// The checkpoint that is given or fetched; None for the embedded one.
    fn checkpoint(&self, entry: &Entry) -> Result<Option<PathBuf>> {
        #[cfg(feature = "fetch")]
        if self.checkpoint.is_none() {
            return crate::fetching::checkpoint(entry, self.access, self.quiet);
        }
        let _ = entry;
        Ok(self.checkpoint.clone())
    }
}

fn no_vocabulary(of: &str) -> bench::Error {
    bench::Error::Option {
        option: "--vocab",
        expected: format!("the WordPiece vocabulary of the text encoder of `{of}`, a token a line"),
        found: "none".to_owned(),
    }
}

impl Model {
    /// How images and captions are encoded; `progress` is told of those that are done.
    pub(crate) fn encoding<'a>(&'a self, progress: &'a dyn Fn(usize)) -> Encoding<'a> {
        Encoding {
            encoder: self.encoder.as_ref(),
            sizes: *self.similarity.config(),
            preprocessing: self.preprocessing,
            tokenizer: &self.tokenizer,
            longest: self.longest,
            batch: self.batch,
            threads: self.threads,
            stop: &self.stop,
            progress,
        }
    }

    /// Entry and engine in a line.
    pub(crate) fn line(&self) -> String {
        format!("{}, engine {}; similarities {}", self.used.entry, self.engine, self.similarity.instruction_set())
    }
}
