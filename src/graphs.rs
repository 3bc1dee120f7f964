//! Encoders that are graphs: those of a folder, or those that are exported for one run.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
};

use bench::{
    Result,
    engine::{EncoderSource, EngineChoice, EngineUsed},
};
use export::{
    graph::Target,
    package::{self, Manifest, Package, Precision, Request, write_encoders},
    runtime::{OrtEncoder, Place, Provider, ProviderOptions, RuntimeError, SessionOptions, environment, library},
};
use zoo::{
    checkpoint::Checkpoint,
    encoder::{Device, Encoder},
    registry::Entry,
};

/// What the user says about execution providers.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Providers {
    /// Execution provider of the engine ort: auto, cpu, cuda, tensorrt. One that can not be used is an error
    #[arg(long, value_name = "PROVIDER")]
    ep: Option<String>,
    /// Memory in MiB that the arena of CUDA or the workspace of TensorRT may take
    #[arg(long, value_name = "MIB")]
    ep_memory: Option<std::num::NonZeroUsize>,
    /// Folder in which TensorRT keeps the engines it has built
    #[arg(long, value_name = "DIR")]
    ep_cache: Option<PathBuf>,
}

impl Providers {
    /// Whether any of them is given, which asks for the engine `ort`.
    pub(crate) fn given(&self) -> bool {
        self.ep.is_some() || self.ep_memory.is_some() || self.ep_cache.is_some()
    }

    /// How sessions compute; `default` stands for a provider that is not named.
    ///
    /// # Errors
    /// [`export::Error::Option`] for a provider that is none, or one that contradicts `device`.
    pub(crate) fn options(&self, default: &str, device: Device, threads: usize) -> export::Result<SessionOptions> {
        Ok(SessionOptions {
            place: Place::of(self.ep.as_deref().unwrap_or(default).parse()?, device)?,
            provider: ProviderOptions {
                memory_limit: self.ep_memory.map(|mib| mib.get().saturating_mul(1 << 20)),
                engine_cache: self.ep_cache.clone(),
                ..ProviderOptions::default()
            },
            ..SessionOptions::cpu(threads)
        })
    }
}

/// The engine to take and, if that is ONNX Runtime, its graphs. A folder that is named decides for it, as does a provider;
/// without either, `auto` stays with the engines that need no export.
pub(crate) fn choose(
    engine: EngineChoice,
    folder: Option<PathBuf>,
    providers: &Providers,
    device: Device,
    threads: usize,
) -> anyhow::Result<(EngineChoice, Option<Rc<Graphs>>)> {
    let refused = |option| bench::Error::Option {
        option,
        expected: "the engine `ort` or `auto`".to_owned(),
        found: format!("the engine `{}`", format!("{engine:?}").to_lowercase()),
    };
    match engine {
        EngineChoice::Torch | EngineChoice::Rust if folder.is_some() => return Err(refused("--graphs").into()),
        EngineChoice::Torch | EngineChoice::Rust if providers.given() => return Err(refused("--ep").into()),
        EngineChoice::Torch | EngineChoice::Rust => return Ok((engine, None)),
        EngineChoice::Auto if folder.is_none() && !providers.given() => return Ok((engine, None)),
        EngineChoice::Auto | EngineChoice::Ort => {}
    }
    let options = providers.options("auto", device, threads)?;
    Ok((EngineChoice::Ort, Some(Rc::new(Graphs::new(folder, Precision::Fp32, options)))))
}

/// The engine for a whole data set, of which `auto` takes the faster one by the figures of the README: on the processor that
/// is ONNX Runtime where its library is there. On a GPU, where Swin is not measured with both, libtorch stays.
///
/// # Errors
/// [`RuntimeError`] for a library that the user names and that is not there.
pub(crate) fn for_data_set(engine: EngineChoice, device: Device) -> anyhow::Result<EngineChoice> {
    let on_processor = match device {
        Device::Cpu => true,
        Device::Auto => bench::engine::libtorch().is_none_or(|libtorch| libtorch.gpus == 0),
        Device::Cuda(_) => false,
    };
    if engine != EngineChoice::Auto || !on_processor {
        return Ok(engine);
    }
    match library::find() {
        Ok(_) => Ok(EngineChoice::Ort),
        Err(RuntimeError::Missing { .. }) => Ok(engine),
        Err(error) => Err(error.into()),
    }
}

/// Graphs in ONNX Runtime.
#[derive(Debug)]
pub(crate) struct Graphs {
    /// None to export them.
    folder: Option<PathBuf>,
    /// Of those that are exported.
    precision: Precision,
    options: SessionOptions,
    /// What was exported last.
    exported: RefCell<Option<(Request, Manifest)>>,
}

impl Graphs {
    /// Those of `folder`, or such of `precision` as are exported when they are opened.
    pub(crate) fn new(folder: Option<PathBuf>, precision: Precision, options: SessionOptions) -> Self {
        Self { folder, precision, options, exported: RefCell::default() }
    }

    /// Others that are exported, run in the same way.
    pub(crate) fn in_precision(&self, precision: Precision) -> Self {
        Self::new(None, precision, self.options.clone())
    }

    /// Of those that are exported.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The nodes of what was exported last that lose most, for people.
    pub(crate) fn at_fault(&self) -> export::Result<String> {
        let exported = self.exported.borrow();
        exported.as_ref().map_or(Ok(String::new()), |(request, manifest)| package::at_fault(request, manifest))
    }

    fn encoder(
        &self,
        entry: &Entry,
        checkpoint: &Rc<Checkpoint>,
        sha256: &str,
    ) -> export::Result<(OrtEncoder, EngineUsed)> {
        match &self.folder {
            Some(folder) => {
                let package = Package::open(folder)?;
                package.check(&entry.config_sha256, sha256)?;
                self.open_package(&package)
            }
            None => {
                let temporary = tempfile::tempdir().map_err(|source| export::Error::Io {
                    action: "write",
                    path: std::env::temp_dir(),
                    source: source.into(),
                })?;
                let request = Request {
                    entry: entry.clone(),
                    checkpoint: Rc::clone(checkpoint),
                    target: Target {
                        flavour: self.options.place.provider().flavour(entry.model.image.is_windowed()),
                        ..Target::default()
                    },
                    precision: self.precision,
                    threads: self.options.threads,
                    vocabulary: None,
                };
                let manifest = write_encoders(&request, temporary.path())?;
                self.exported.replace(Some((request, manifest.clone())));
                // A session holds what it needs of a file: the folder may go.
                open_files(temporary.path(), &manifest, &self.options)
            }
        }
    }

    /// The encoder of a folder of graphs alone, whose files were seen to be those that were written.
    pub(crate) fn open_package(&self, package: &Package) -> export::Result<(OrtEncoder, EngineUsed)> {
        open_files(&package.folder, &package.manifest, &self.options)
    }
}

/// What computes as far as the user says it.
fn provider(options: &SessionOptions) -> Provider {
    match options.place {
        Place::Gpu(provider, _) => provider,
        Place::Best | Place::Processor => Provider::Cpu,
    }
}

/// Opens the graphs of a folder, and says what computes them.
pub(crate) fn open_files(
    folder: &Path,
    manifest: &Manifest,
    options: &SessionOptions,
) -> export::Result<(OrtEncoder, EngineUsed)> {
    let (flavour, precision) = (manifest.flavour.parse()?, manifest.precision);
    provider(options).check(flavour, precision, manifest.windowed)?;
    let sizes = (manifest.image.size, manifest.text.longest);
    let place = match options.place {
        Place::Best if Provider::Cuda.check(flavour, precision, manifest.windowed).is_err() => Place::Processor,
        place => place,
    };
    let encoder = OrtEncoder::open(folder, sizes, &SessionOptions { place, ..options.clone() })?;
    let (_, library, _) = environment()?;
    let used = EngineUsed {
        name: "ort".into(),
        version: library.version.unwrap_or_else(|| "of unknown version".to_owned()),
        device: encoder.device().to_string(),
        threads: options.threads,
        graphs: Some(manifest.description()),
        placement: Some(encoder.placement().clone()),
    };
    Ok((encoder, used))
}

pub(crate) fn failed(error: export::Error) -> bench::Error {
    bench::Error::Source { engine: "ort", source: error.into() }
}

impl EncoderSource for Graphs {
    fn check(&self) -> Result<()> {
        let fits = || {
            let (_, library, _) = environment()?;
            // What a folder holds can be said before anything else is read.
            if let Some(folder) = &self.folder {
                let manifest = Package::manifest(folder)?;
                provider(&self.options).check(manifest.flavour.parse()?, manifest.precision, manifest.windowed)?;
            }
            Ok(provider(&self.options).find(&library)?)
        };
        fits().map_err(failed)
    }

    fn open(&self, entry: &Entry, checkpoint: &Rc<Checkpoint>, sha256: &str) -> Result<(Box<dyn Encoder>, EngineUsed)> {
        let (encoder, used) = self.encoder(entry, checkpoint, sha256).map_err(failed)?;
        Ok((Box::new(encoder), used))
    }
}
