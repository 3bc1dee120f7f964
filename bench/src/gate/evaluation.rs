//! Hits and memory of the embedded entries.

use std::{path::Path, sync::atomic::AtomicBool};

use laps::embedded;
use laps_align::{CUTS, CaptionImages, Hits, RetrievalError, Scores, hits};
use laps_data::Split;
use laps_hub::registry::Entry;
use safetensors::SafeTensors;

use super::{Gathered, Group, Measure};
use crate::{
    Error, Result,
    alignment::Watermark,
    reproduce::{Request, reproduce},
};

/// Two similarities, of up to 2, that are nearer to each other than this have no order: instruction sets sum in different
/// orders, and engines agree within 2e-6.
pub const ROUNDING: f32 = 1e-5;

/// Threads of an evaluation, on which its memory depends.
const THREADS: usize = 2;

/// Evaluates an embedded entry on the test split that it draws, by the engine in pure Rust, which every build has: its hits,
/// and the most memory that the process had above what it had before. The memory is that of a process which has done
/// nothing else, so call this once in a process.
///
/// # Errors
/// Whatever keeps the entry from being evaluated.
pub fn evaluation(entry: &Entry) -> Result<[Gathered; 2]> {
    // Drawn and unpacked first: neither is part of an evaluation.
    let paths = embedded::data_paths(entry, None, None)?;
    embedded::checkpoint(entry)?;
    let folder =
        tempfile::tempdir().map_err(|source| Error::Write { path: std::env::temp_dir(), source: source.into() })?;
    let sims = folder.path().join("sims.safetensors");
    let request = Request { threads: THREADS, sims: Some(sims.clone()), ..Request::new(entry.clone()) };
    let mark = Watermark::reset();
    reproduce(&request, &AtomicBool::new(false), &())?;
    let memory = match mark.above() {
        Some(bytes) => Ok(vec![Measure::new(format!("{}/bytes", entry.name), bytes as f64)]),
        None => Err("this system does not tell a process its peak".to_owned()),
    };
    let hits = hits_of(entry, &paths.captions, &sims)?;
    Ok([Gathered { group: Group::Memory, measures: memory }, Gathered::measured(Group::Recalls, hits)])
}

fn hits_of(entry: &Entry, captions: &Path, sims: &Path) -> Result<Vec<Measure>> {
    let split = Split::open(captions, &entry.data.test)?;
    let captions = CaptionImages::new(split.images().len(), split.image_of())?;
    let bytes = fs_err::read(sims).map_err(|error| RetrievalError::Read { path: sims.to_owned(), source: error })?;
    let file = SafeTensors::deserialize(&bytes).and_then(|file| file.tensor("sims").map(|view| view.data().to_vec()));
    let values = file.map_err(|error| Error::Baseline { path: sims.to_owned(), source: error.into() })?;
    let scores = Scores::from_bytes(&values, captions.images(), captions.captions())?;
    recalls(&entry.name, &scores, &captions)
}

/// Hits of a matrix of the entry `name` among the first 1, 5 and 10, in both directions.
///
/// # Errors
/// [`laps_align::RetrievalError::Size`] where the sizes differ.
pub fn recalls(name: &str, scores: &Scores, captions: &CaptionImages) -> Result<Vec<Measure>> {
    let found = hits(scores, captions, ROUNDING)?;
    let measure = |direction: &str, cut: usize, hits: &Hits| Measure {
        name: format!("{name}/{direction}/hits among the first {cut}"),
        value: hits.found as f64,
        bounds: Some([hits.certain as f64, hits.possible as f64]),
    };
    let sides = [("image to text", found.i2t), ("text to image", found.t2i)];
    let measures = sides.iter().flat_map(|(direction, hits)| {
        CUTS.iter().zip(hits).map(|(&cut, hits)| measure(direction, cut, hits)).collect::<Vec<_>>()
    });
    Ok(measures.collect())
}
