//! Encoders that are graphs: those of a folder, or those that are exported for one run.

use std::{path::PathBuf, rc::Rc};

use bench::{
    Result,
    engine::{EncoderSource, EngineChoice, EngineUsed},
};
use export::{
    graph::Target,
    package::{Manifest, Package, Precision, Request, write_encoders},
    runtime::{OrtEncoder, SessionOptions, environment},
};
use zoo::{
    checkpoint::Checkpoint,
    encoder::{Device, Encoder},
    registry::Entry,
};

/// The engine to take and, if that is ONNX Runtime, its graphs. A folder that is named decides for it; without one, `auto`
/// stays with the engines that need no export.
pub(crate) fn choose(
    engine: EngineChoice,
    folder: Option<PathBuf>,
    device: Device,
    threads: usize,
) -> Result<(EngineChoice, Option<Rc<dyn EncoderSource>>)> {
    match (engine, folder) {
        (EngineChoice::Torch | EngineChoice::Rust, Some(_)) => Err(bench::Error::Option {
            option: "--graphs",
            expected: "the engine `ort` or `auto`".to_owned(),
            found: format!("the engine `{}`", format!("{engine:?}").to_lowercase()),
        }),
        (EngineChoice::Auto, None) | (EngineChoice::Torch | EngineChoice::Rust, None) => Ok((engine, None)),
        (EngineChoice::Ort | EngineChoice::Auto, folder) => {
            Ok((EngineChoice::Ort, Some(Rc::new(Graphs { folder, device, threads }))))
        }
    }
}

/// Graphs in ONNX Runtime.
#[derive(Debug)]
pub(crate) struct Graphs {
    /// None to export them.
    pub(crate) folder: Option<PathBuf>,
    /// Where to compute.
    pub(crate) device: Device,
    /// Threads of one operation.
    pub(crate) threads: usize,
}

impl Graphs {
    fn encoder(
        &self,
        entry: &Entry,
        checkpoint: &Rc<Checkpoint>,
        sha256: &str,
    ) -> export::Result<(OrtEncoder, EngineUsed)> {
        let options = SessionOptions { device: self.device, ..SessionOptions::cpu(self.threads) };
        let longest = entry.model.text.max_position_embeddings;
        let (encoder, manifest) = match &self.folder {
            Some(folder) => {
                let package = Package::open(folder)?;
                package.check(&entry.config_sha256, sha256)?;
                return self.open_package(&package);
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
                    target: Target::default(),
                    precision: Precision::Fp32,
                    threads: self.threads,
                    vocabulary: None,
                };
                let manifest = write_encoders(&request, temporary.path())?;
                // A session holds what it needs of a file: the folder may go.
                (OrtEncoder::open(temporary.path(), longest, &options)?, manifest)
            }
        };
        self.used(encoder, &manifest)
    }

    /// The encoder of a folder of graphs alone, whose files were seen to be those that were written.
    pub(crate) fn open_package(&self, package: &Package) -> export::Result<(OrtEncoder, EngineUsed)> {
        let options = SessionOptions { device: self.device, ..SessionOptions::cpu(self.threads) };
        let encoder = OrtEncoder::open(&package.folder, package.manifest.text.longest, &options)?;
        self.used(encoder, &package.manifest)
    }

    fn used(&self, encoder: OrtEncoder, manifest: &Manifest) -> export::Result<(OrtEncoder, EngineUsed)> {
        let (_, library, _) = environment()?;
        let used = EngineUsed {
            name: "ort".into(),
            version: library.version.unwrap_or_else(|| "of unknown version".to_owned()),
            device: encoder.device().to_string(),
            threads: self.threads,
            graphs: Some(manifest.description()),
        };
        Ok((encoder, used))
    }
}

pub(crate) fn failed(error: export::Error) -> bench::Error {
    bench::Error::Source { engine: "ort", source: error.into() }
}

impl EncoderSource for Graphs {
    fn check(&self) -> Result<()> {
        environment().map(drop).map_err(|error| failed(error.into()))
    }

    fn open(&self, entry: &Entry, checkpoint: &Rc<Checkpoint>, sha256: &str) -> Result<(Box<dyn Encoder>, EngineUsed)> {
        let (encoder, used) = self.encoder(entry, checkpoint, sha256).map_err(failed)?;
        Ok((Box::new(encoder), used))
    }
}
