//! The backend on ONNX Runtime: graphs of a folder, or graphs that are exported for one run.

use std::{
    cell::RefCell,
    io,
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
    package::{
        self, CachedGraphs, ExportRequest, GraphCache, Package, PackageManifest, describe_encoders, encode_graph,
        write_encoders,
    },
    runtime::{ExecutionDevice, Optimization, OrtEncoder, Provider, Session, SessionOptions, environment},
};

use crate::{Array, Backend, EngineUsed, Result};

/// Computes embeddings with graphs in ONNX Runtime.
#[derive(Debug)]
pub struct OnnxBackend {
    /// Folder of exported graphs; None to export them when they are opened.
    folder: Option<PathBuf>,
    /// Precision of the exported graphs.
    precision: GraphPrecision,
    options: SessionOptions,
    /// Where optimised graphs are kept.
    cache: Option<GraphCache>,
    /// The last export.
    exported: RefCell<Option<(ExportRequest, PackageManifest)>>,
    /// Creates the folder of the files of an export.
    create_folder: fn() -> io::Result<TemporaryFolder>,
    /// Why the last export is in memory, if it is.
    note: RefCell<Option<String>>,
}

impl OnnxBackend {
    /// Graphs of `folder`, or without one graphs in `precision` that are exported when they are opened.
    pub fn new(folder: Option<PathBuf>, precision: GraphPrecision, options: SessionOptions) -> Self {
        Self {
            folder,
            precision,
            options,
            cache: None,
            exported: RefCell::default(),
            create_folder: TemporaryFolder::create,
            note: RefCell::default(),
        }
    }

    /// Keeps graphs that are exported and optimised for a CPU in `cache`, from which the next backend loads them.
    pub fn with_cache(mut self, cache: Option<GraphCache>) -> Self {
        self.cache = cache;
        self
    }

    /// Graphs to export in another precision, with the same session options.
    pub fn in_precision(&self, precision: GraphPrecision) -> Self {
        Self::new(None, precision, self.options.clone()).with_cache(self.cache.clone())
    }

    /// Precision of the exported graphs.
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
                let (opened, manifest) = self.open_exported(&request, sha256)?;
                self.exported.replace(Some((request, manifest)));
                Ok(opened)
            }
        }
    }

    /// Opens the graphs of a request: those in the cache, or graphs that are exported now.
    fn open_exported(
        &self,
        request: &ExportRequest,
        sha256: &str,
    ) -> Result<((OrtEncoder, EngineUsed), PackageManifest)> {
        // The graphs of a GPU are not kept: TensorRT has a cache of its own, and CUDA's optimised graphs are untested.
        let on_cpu = self.options.device.provider() == Provider::Cpu;
        let cache = self.cache.as_ref().filter(|_| on_cpu);
        let cache = cache.and_then(|cache| Some((cache, GraphCache::key(request, sha256)?)));
        if let Some((cache, key)) = &cache
            && let Some(CachedGraphs { folder, manifest, .. }) = cache.find(key)
        {
            let options = SessionOptions { optimization: Optimization::Saved, ..self.options.clone() };
            match Self::open_files(&folder, &manifest, &options) {
                Ok(opened) => return Ok((opened, manifest)),
                Err(_) => cache.remove(key),
            }
        }
        // A session does not need its graph after loading. Files take less memory: of a graph in memory there are two
        // copies while it is loaded. Without a place for them, or without space, memory has to do.
        let written = match (self.create_folder)() {
            Ok(folder) => match write_encoders(request, folder.path()) {
                Ok(manifest) => Ok((folder, manifest)),
                Err(laps_onnx::Error::Io(error @ IoError { action: "write", .. })) => {
                    Err(format!("{error}: {}", error.source))
                }
                Err(error) => return Err(error.into()),
            },
            Err(error) => Err(error.to_string()),
        };
        let (folder, manifest) = match written {
            Ok(written) => written,
            Err(reason) => {
                let note =
                    format!("the graphs of ONNX Runtime are in memory, because no file can be written: {reason}");
                self.note.replace(Some(note));
                let manifest = describe_encoders(request)?;
                let load = |kind: GraphKind, options: &SessionOptions| {
                    let bytes = encode_graph(request, &manifest, kind)?;
                    Ok(Session::from_memory(&kind.file(), &bytes, options)?)
                };
                return Ok((Self::open_with(&load, &manifest, &self.options)?, manifest));
            }
        };
        if let Some(pending) = cache.and_then(|(cache, key)| cache.create(&key)) {
            let load = |kind: GraphKind, options: &SessionOptions| {
                let optimization = Optimization::SaveTo(pending.path(kind));
                let options = SessionOptions { optimization, ..options.clone() };
                Ok(Session::open(&folder.path().join(kind.file()), &options)?)
            };
            // Without space for the optimised graphs, they are not kept.
            if let Ok(opened) = Self::open_with(&load, &manifest, &self.options) {
                pending.keep(&manifest);
                return Ok((opened, manifest));
            }
        }
        Ok((Self::open_files(folder.path(), &manifest, &self.options)?, manifest))
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
        manifest: &PackageManifest,
        options: &SessionOptions,
    ) -> Result<(OrtEncoder, EngineUsed)> {
        Self::open_checked(manifest, options, |size, length, options| OrtEncoder::open(folder, size, length, options))
    }

    fn open_with(
        load: &dyn Fn(GraphKind, &SessionOptions) -> laps_onnx::Result<Session>,
        manifest: &PackageManifest,
        options: &SessionOptions,
    ) -> Result<(OrtEncoder, EngineUsed)> {
        Self::open_checked(manifest, options, |size, length, options| OrtEncoder::load(load, size, length, options))
    }

    /// Opens an encoder with `open`, for images of a size and captions of a length, after checking the provider.
    fn open_checked(
        manifest: &PackageManifest,
        options: &SessionOptions,
        open: impl FnOnce(usize, usize, &SessionOptions) -> laps_onnx::Result<OrtEncoder>,
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
        let encoder = open(size, length, &SessionOptions { device, ..options.clone() })?;
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
        self.note.replace(None);
        let (encoder, used) = self.open(entry, checkpoint, sha256)?;
        let model = &entry.model;
        if !model.head.pools() {
            return Ok((Box::new(encoder), used));
        }
        let checkpoint = Rc::clone(checkpoint);
        let read = move |parameter: &Parameter| Ok(checkpoint.read(&parameter.name)?);
        Ok((pooled(encoder, &model.head, &HeadSizes::of(model), read)?, used))
    }

    fn notes(&self) -> Vec<String> {
        self.note.borrow().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, rc::Rc};

    use fs_err as fs;
    use laps_files::{TemporaryFolder, sha256_hex};
    use laps_hub::registry;
    use laps_model::encoder::Encoder as _;
    use laps_onnx::{
        graph::{GraphKind, GraphPrecision},
        package::GraphCache,
        runtime::{SessionOptions, library},
    };

    use super::OnnxBackend;
    use crate::{Array, Backend as _, open_checkpoint};

    /// Graphs of `shapes_vit` that are exported when they are opened.
    fn backend() -> OnnxBackend {
        OnnxBackend::new(None, GraphPrecision::Fp32, SessionOptions::cpu(2))
    }

    /// Opens `shapes_vit`, and returns the producer that its manifest names and all values of an image and a caption.
    fn open(cache: Option<GraphCache>) -> (String, Vec<f32>) {
        values(&backend().with_cache(cache))
    }

    fn values(backend: &OnnxBackend) -> (String, Vec<f32>) {
        let entry = registry::find("shapes_vit").unwrap();
        let checkpoint = Rc::new(open_checkpoint(&entry, None).unwrap().0);
        let sha256 = checkpoint.sha256().unwrap();
        let (encoder, _) = backend.open(&entry, &checkpoint, &sha256).unwrap();
        let size = entry.model.image.image_size();
        let pixels = (0..3 * size * size).map(|index| (index % 255) as f32 / 255.0).collect();
        let image = encoder.encode_images(&Array::new(&[1, 3, size, size], pixels).unwrap()).unwrap();
        let words = encoder.encode_captions(&[&[1, 2, 3, 4, 5]]).unwrap();
        let values = [image.values(), words[0].values()].concat();
        let exported = backend.exported.borrow();
        (exported.as_ref().unwrap().1.producer.clone(), values)
    }

    /// The kept folder, after `edit` has changed its record.
    fn edit(cache: &GraphCache, edit: impl Fn(&mut serde_json::Value)) -> PathBuf {
        let [kept] = &cache.list()[..] else { panic!("one folder of graphs is expected") };
        let path = kept.folder.join("graphs.json");
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        kept.folder.clone()
    }

    #[test]
    fn graphs_are_in_memory_and_noted_without_a_place_for_files() {
        if library::find().is_err() {
            eprintln!("skipped: ONNX Runtime was not found");
            return;
        }
        let mut without = backend();
        without.create_folder = || Err(std::io::Error::other("no place"));
        assert_eq!(values(&without), open(None));
        assert_eq!(
            without.notes(),
            ["the graphs of ONNX Runtime are in memory, because no file can be written: no place"]
        );
        assert!(backend().notes().is_empty());
    }

    #[test]
    fn second_start_loads_the_kept_graphs_with_the_same_bits() {
        if library::find().is_err() {
            eprintln!("skipped: ONNX Runtime was not found");
            return;
        }
        let root = TemporaryFolder::create().unwrap();
        let cache = GraphCache::new(root.path());
        let (exporter, without) = open(None);
        assert!(cache.list().is_empty());
        assert_eq!(open(Some(cache.clone())), (exporter.clone(), without.clone()));
        edit(&cache, |record| record["manifest"]["producer"] = "cache".into());
        assert_eq!(open(Some(cache.clone())), ("cache".to_owned(), without.clone()));

        // Graphs that ONNX Runtime refuses are exported again, and kept again.
        let damaged = b"not a graph";
        let folder = edit(&cache, |record| {
            for file in record["files"].as_array_mut().unwrap() {
                if file["name"] == GraphKind::Image.file() {
                    file["bytes"] = damaged.len().into();
                    file["head_sha256"] = sha256_hex(damaged).into();
                }
            }
        });
        fs::write(folder.join(GraphKind::Image.file()), damaged).unwrap();
        assert_eq!(open(Some(cache.clone())), (exporter.clone(), without.clone()));
        assert_eq!(cache.list()[0].manifest.producer, exporter);

        // A place that cannot be written keeps nothing.
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(open(Some(GraphCache::new(&file))), (exporter, without));
    }
}
