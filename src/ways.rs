//! What encoders are measured on: engines by precision.

use std::rc::Rc;

use anyhow::Result;
use bench::{
    engine::{EngineChoice, EngineUsed},
    timing::{DirectWay, Request, Way},
};
use export::{
    graph::{Flavour, Target},
    package::{self, Manifest, Precision, Request as ExportRequest, write_encoders},
    record::Part,
    runtime::{OrtEncoder, Place, SessionOptions, environment},
    structure::multiply_adds,
};
use tempfile::TempDir;
use zoo::{
    array::Array,
    checkpoint::Checkpoint,
    encoder::{Device, Encoder},
    registry::Entry,
};

use crate::graphs::open_files;

/// What is shared by all ways of one entry.
pub(crate) struct Subject<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) checkpoint: &'a Rc<Checkpoint>,
    pub(crate) device: Device,
    pub(crate) threads: usize,
}

/// Every engine in every precision that it has, ONNX Runtime with the operators of every flavour. Engines that compute on
/// the weights themselves have single precision only, and are left out where that is not asked for.
pub(crate) fn ways(
    subject: &Subject<'_>,
    engines: &[EngineChoice],
    precisions: &[Precision],
    flavours: &[Flavour],
) -> Result<Vec<Box<dyn Way>>> {
    let mut all: Vec<Box<dyn Way>> = Vec::new();
    for &choice in engines {
        if choice == EngineChoice::Ort {
            // Said before graphs are written.
            environment()?;
            for &precision in precisions {
                for &flavour in flavours {
                    all.push(Box::new(GraphWay::new(subject, precision, flavour)?));
                }
            }
        } else if precisions.contains(&Precision::Fp32) {
            bench::engine::check(choice, subject.device)?;
            let (entry, checkpoint) = (subject.entry.clone(), Rc::clone(subject.checkpoint));
            all.push(Box::new(DirectWay { choice, device: subject.device, entry, checkpoint }));
        }
    }
    Ok(all)
}

/// Graphs that were written for ONNX Runtime.
struct GraphWay {
    folder: TempDir,
    manifest: Manifest,
    options: SessionOptions,
}

impl GraphWay {
    fn new(subject: &Subject<'_>, precision: Precision, flavour: Flavour) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let request = ExportRequest {
            entry: subject.entry.clone(),
            checkpoint: Rc::clone(subject.checkpoint),
            target: Target { flavour, ..Target::default() },
            precision,
            threads: subject.threads,
            vocabulary: None,
        };
        let manifest = write_encoders(&request, folder.path())?;
        let place = Place::of("auto".parse()?, subject.device)?;
        Ok(Self { folder, manifest, options: SessionOptions { place, ..SessionOptions::cpu(subject.threads) } })
    }

    fn load(&self) -> export::Result<(OrtEncoder, EngineUsed)> {
        open_files(self.folder.path(), &self.manifest, &self.options)
    }
}

impl Way for GraphWay {
    fn precision(&self) -> String {
        self.manifest.precision.to_string()
    }

    fn flavour(&self) -> Option<String> {
        Some(self.manifest.flavour.clone())
    }

    fn file_bytes(&self) -> Option<u64> {
        let size = |part: Part| fs_err::metadata(self.folder.path().join(part.file())).ok().map(|file| file.len());
        Some(size(Part::Image)? + size(Part::Text)?)
    }

    fn open(&self) -> bench::Result<(Box<dyn Encoder>, EngineUsed)> {
        let failed = |error: export::Error| bench::Error::Source { engine: "ort", source: error.into() };
        let (encoder, used) = self.load().map_err(failed)?;
        Ok((Box::new(encoder), used))
    }
}

/// Multiply-adds of an image, of a caption and of a pair, counted in the graphs of the definition.
pub(crate) fn counts(entry: &Entry) -> Result<[Option<u64>; 3]> {
    let count = |part: Part| -> Result<Option<u64>> {
        let weights =
            |parameter: &zoo::params::Parameter| Array::new(&parameter.shape, vec![0.0; parameter.elements()]);
        let graph = package::graph(part, &entry.model, (Target::default(), Precision::Fp32), weights)?;
        let size = |symbol: &str| if matches!(symbol, "length" | "words") { Request::WORDS } else { 1 };
        Ok(Some(multiply_adds(&graph, size)))
    };
    Ok([count(Part::Image)?, count(Part::Text)?, count(Part::Score)?])
}
