//! The encoders to measure: an engine in a precision, with everything that it loads in files.

use std::{fmt, rc::Rc};

use laps::{Backend, Backends, EngineChoice, EngineUsed, OnnxBackend};
use laps_files::TemporaryFolder;
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::{
    array::Array,
    encoder::{Device, Encoder},
    params::Parameter,
};
use laps_onnx::{
    graph::{Flavour, GraphKind, GraphPrecision, Target},
    package::{self, ExportRequest, PackageManifest, write_encoders},
    runtime::{ExecutionDevice, SessionOptions, environment},
    size::multiply_adds,
};

use super::TimingRequest;
use crate::{Error, Result};

/// An engine in a precision.
#[derive(Clone, Debug)]
pub struct EncoderCase {
    /// The engine.
    pub backend: Rc<dyn Backend>,
    /// `fp32`, `fp16` or `int8`.
    pub precision: String,
    /// Operators of its graphs. None for an engine without graphs.
    pub flavour: Option<String>,
    /// Size in bytes of the files that it loads.
    pub file_bytes: Option<u64>,
}

/// The entry whose encoders are measured, and where.
#[derive(Clone, Copy, Debug)]
pub struct CaseOptions<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// Its checkpoint.
    pub checkpoint: &'a Rc<Checkpoint>,
    /// Device.
    pub device: Device,
    /// Number of threads.
    pub threads: usize,
    /// Backends of this program.
    pub backends: Backends,
}

impl CaseOptions<'_> {
    /// Every engine in every precision that it supports, and ONNX Runtime in every flavour. Engines that compute on the
    /// checkpoint support single precision only, and are left out unless `precisions` contains it.
    ///
    /// # Errors
    /// An engine or device that is not available, and graphs that cannot be written.
    pub fn cases(
        &self,
        engines: &[EngineChoice],
        precisions: &[GraphPrecision],
        flavours: &[Flavour],
    ) -> Result<Vec<EncoderCase>> {
        let mut cases = Vec::new();
        for &engine in engines {
            if engine == EngineChoice::Ort {
                // Fail early if ONNX Runtime is missing.
                environment()?;
                for &precision in precisions {
                    for &flavour in flavours {
                        cases.push(self.export(precision, flavour)?);
                    }
                }
            } else if precisions.contains(&GraphPrecision::Fp32) {
                let backend = self.backends.on_checkpoint(engine, self.device)?;
                backend.check()?;
                let file_bytes = Some(self.checkpoint.file_bytes());
                cases.push(EncoderCase { backend, precision: "fp32".to_owned(), flavour: None, file_bytes });
            }
        }
        Ok(cases)
    }

    fn export(&self, precision: GraphPrecision, flavour: Flavour) -> Result<EncoderCase> {
        let folder = TemporaryFolder::create()
            .map_err(|source| Error::Write { path: std::env::temp_dir(), source: source.into() })?;
        let request = ExportRequest {
            entry: self.entry.clone(),
            checkpoint: Rc::clone(self.checkpoint),
            target: Target { flavour, ..Target::default() },
            precision,
            threads: self.threads,
            vocabulary: None,
        };
        let manifest = write_encoders(&request, folder.path())?;
        let device = ExecutionDevice::new("auto".parse()?, self.device)?;
        let options = SessionOptions { device, ..SessionOptions::cpu(self.threads) };
        let size = |part: GraphKind| fs_err::metadata(folder.path().join(part.file())).ok().map(|file| file.len());
        let file_bytes = size(GraphKind::Image).zip(size(GraphKind::Text)).map(|(image, text)| image + text);
        Ok(EncoderCase {
            precision: manifest.precision.to_string(),
            flavour: Some(manifest.flavour.clone()),
            file_bytes,
            backend: Rc::new(ExportedGraphs { folder, manifest, options }),
        })
    }
}

/// Graphs exported for this measurement.
struct ExportedGraphs {
    folder: TemporaryFolder,
    manifest: PackageManifest,
    options: SessionOptions,
}

impl fmt::Debug for ExportedGraphs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportedGraphs").field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

impl Backend for ExportedGraphs {
    fn check(&self) -> laps::Result<()> {
        environment()?;
        Ok(())
    }

    fn encoder(&self, _: &Entry, _: &Rc<Checkpoint>, _: &str) -> laps::Result<(Box<dyn Encoder>, EngineUsed)> {
        let (encoder, used) = OnnxBackend::open_files(self.folder.path(), &self.manifest, &self.options)?;
        Ok((Box::new(encoder), used))
    }
}

/// Multiply-adds of an image, of a caption and of a pair, counted in the graphs of the model definition.
///
/// # Errors
/// An entry whose graphs cannot be recorded.
pub fn count_multiply_adds(entry: &Entry) -> Result<[Option<u64>; 3]> {
    let count = |part: GraphKind| -> Result<Option<u64>> {
        let weights = |parameter: &Parameter| Array::new(&parameter.shape, vec![0.0; parameter.elements()]);
        let graph = package::build_graph(part, &entry.model, Target::default(), GraphPrecision::Fp32, weights)?;
        let size = |symbol: &str| if matches!(symbol, "length" | "words") { TimingRequest::WORDS } else { 1 };
        Ok(Some(multiply_adds(&graph, size)))
    };
    Ok([count(GraphKind::Image)?, count(GraphKind::Text)?, count(GraphKind::Score)?])
}
