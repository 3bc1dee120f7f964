//! The backend on ONNX Runtime: graphs of a folder, or graphs that are exported for one run.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
};

use laps_files::{IoError, TemporaryFolder};
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::{
    encoder::{Encoder, PooledEncoder},
    heads::{HeadConfig, HeadSizes},
    params::Parameter,
};
use laps_onnx::{
    graph::{GraphKind, GraphPrecision, Target},
    package::{self, ExportRequest, Manifest, Package, describe_encoders, encode_graph, write_encoders},
    runtime::{ExecutionDevice, OrtEncoder, Provider, Session, SessionOptions, environment},
};

use crate::{Array, Backend, EngineUsed, Result};

/// Computes embeddings with graphs in ONNX Runtime.
#[derive(Debug)]
pub struct OnnxBackend {
    /// Folder of exported graphs; None to export them when they are opened.
    folder: Option<PathBuf>,
    /// GraphPrecision of the exported graphs.
    precision: GraphPrecision,
    options: SessionOptions,
    /// The last export.
    exported: RefCell<Option<(ExportRequest, Manifest)>>,
}

impl OnnxBackend {
    /// Graphs of `folder`, or without one graphs in `precision` that are exported when they are opened.
    pub fn new(folder: Option<PathBuf>, precision: GraphPrecision, options: SessionOptions) -> Self {
        Self { folder, precision, options, exported: RefCell::default() }
    }

    /// Graphs to export in another precision, with the same session options.
    pub fn in_precision(&self, precision: GraphPrecision) -> Self {
        Self::new(None, precision, self.options.clone())
    }

    /// GraphPrecision of the exported graphs.
    pub fn precision(&self) -> GraphPrecision {
        self.precision
    }

    /// The nodes of the last export that lose most precision, as text.
    ///
    /// # Errors
    /// Graphs that ONNX Runtime cannot run.
    pub fn worst_nodes(&self) -> Result<String> {
        let exported = self.exported.borrow();
        Ok(exported
            .as_ref()
            .map_or(Ok(String::new()), |(request, manifest)| package::worst_nodes(request, manifest))?)
    }

    fn open(&self, entry: &Entry, checkpoint: &Rc<Checkpoint>, sha256: &str) -> Result<(OrtEncoder, EngineUsed)> {
        match &self.folder {
            Some(folder) => {
                let package = Package::open(folder)?;
                package.check(&entry.config_sha256, sha256)?;
                Self::open_files(folder, &package.manifest, &self.options)
            }
            None => {
                let request = ExportRequest {
                    entry: entry.clone(),
                    checkpoint: Rc::clone(checkpoint),
                    target: Target {
                        flavour: self.options.device.provider().flavour(entry.model.image.is_windowed()),
                        ..Target::default()
                    },
                    precision: self.precision,
                    threads: self.options.threads,
                    vocabulary: None,
                };
                // A session does not need its graph after loading. Files take less memory: of a graph in memory there are
                // two copies while it is loaded. Without a place for them, or without space, memory has to do.
                let written = match TemporaryFolder::create() {
                    Ok(folder) => match write_encoders(&request, folder.path()) {
                        Ok(manifest) => Some((folder, manifest)),
                        Err(laps_onnx::Error::Io(IoError { action: "write", .. })) => None,
                        Err(error) => return Err(error.into()),
                    },
                    Err(_) => None,
                };
                let (opened, manifest) = match written {
                    Some((folder, manifest)) => (Self::open_files(folder.path(), &manifest, &self.options)?, manifest),
                    None => {
                        let manifest = describe_encoders(&request)?;
                        let load = |kind: GraphKind, options: &SessionOptions| {
                            let bytes = encode_graph(&request, &manifest, kind)?;
                            Ok(Session::from_memory(&kind.file(), &bytes, options)?)
                        };
                        (Self::open_with(&load, &manifest, &self.options)?, manifest)
                    }
                };
                self.exported.replace(Some((request, manifest)));
                Ok(opened)
            }
        }
    }

    /// Opens the encoder of a folder of graphs whose hashes were verified. The head of the package pools, if it does so.
    ///
    /// # Errors
    /// Graphs that the provider cannot run.
    pub fn open_package(&self, package: &Package) -> Result<(Box<dyn Encoder>, EngineUsed)> {
        let (encoder, used) = Self::open_files(&package.folder, &package.manifest, &self.options)?;
        let head = package.manifest.head;
        if !head.pools() {
            return Ok((Box::new(encoder), used));
        }
        let (sizes, read) = package.head()?;
        Ok((pooled(encoder, &head, &sizes, read)?, used))
    }

    /// Opens the graphs of a folder that `manifest` describes.
    ///
    /// # Errors
    /// Graphs that the provider cannot run.
    pub fn open_files(
        folder: &Path,
        manifest: &Manifest,
        options: &SessionOptions,
    ) -> Result<(OrtEncoder, EngineUsed)> {
        let load = |kind: GraphKind, options: &SessionOptions| Ok(Session::open(&folder.join(kind.file()), options)?);
        Self::open_with(&load, manifest, options)
    }

    fn open_with(
        load: &dyn Fn(GraphKind, &SessionOptions) -> laps_onnx::Result<Session>,
        manifest: &Manifest,
        options: &SessionOptions,
    ) -> Result<(OrtEncoder, EngineUsed)> {
        let (flavour, precision) = (manifest.flavour.parse()?, manifest.precision);
        provider(options).check(flavour, precision, manifest.windowed)?;
        let (size, length) = (manifest.image.size, manifest.text.longest);
        let device = match options.device {
            ExecutionDevice::Auto if Provider::Cuda.check(flavour, precision, manifest.windowed).is_err() => {
                ExecutionDevice::Cpu
            }
            device => device,
        };
        let encoder = OrtEncoder::load(load, size, length, &SessionOptions { device, ..options.clone() })?;
        let (_, library, _) = environment()?;
        let used = EngineUsed {
            name: "ort".into(),
            version: library.version.unwrap_or_else(|| "of unknown version".to_owned()),
            device: encoder.device().to_string(),
            threads: options.threads,
            graphs: Some(manifest.description()),
            placement: encoder.placement().cloned(),
        };
        Ok((encoder, used))
    }
}

/// The graphs compute the embeddings of tokens and words; the head pools them.
fn pooled(
    encoder: OrtEncoder,
    head: &HeadConfig,
    sizes: &HeadSizes,
    read: impl Fn(&Parameter) -> laps_model::Result<Array> + 'static,
) -> Result<Box<dyn Encoder>> {
    Ok(Box::new(PooledEncoder::new(encoder, head, sizes, read)?))
}

/// The provider that the user requests; the CPU if none is.
fn provider(options: &SessionOptions) -> Provider {
    match options.device {
        ExecutionDevice::Gpu(provider, _) => provider,
        ExecutionDevice::Auto | ExecutionDevice::Cpu => Provider::Cpu,
    }
}

impl Backend for OnnxBackend {
    fn check(&self) -> Result<()> {
        let (_, library, _) = environment()?;
        // Check the manifest before anything else is read.
        if let Some(folder) = &self.folder {
            let manifest = Package::read_manifest(folder)?;
            provider(&self.options).check(manifest.flavour.parse()?, manifest.precision, manifest.windowed)?;
        }
        Ok(provider(&self.options).check_installed(&library)?)
    }

    fn encoder(
        &self,
        entry: &Entry,
        checkpoint: &Rc<Checkpoint>,
        sha256: &str,
    ) -> Result<(Box<dyn Encoder>, EngineUsed)> {
        let (encoder, used) = self.open(entry, checkpoint, sha256)?;
        let model = &entry.model;
        if !model.head.pools() {
            return Ok((Box::new(encoder), used));
        }
        let checkpoint = Rc::clone(checkpoint);
        let read = move |parameter: &Parameter| Ok(checkpoint.read(&parameter.name)?);
        Ok((pooled(encoder, &model.head, &HeadSizes::of(model), read)?, used))
    }
}
