//! Hits and peak memory of the embedded entries.

use std::{path::Path, sync::atomic::AtomicBool};

use laps::embedded;
use laps_align::{CaptionImages, Hits, RetrievalError, Scores, TOP_K, hits};
use laps_data::Split;
use laps_files::TemporaryFolder;
use laps_hub::registry::Entry;
use safetensors::SafeTensors;

use super::{GateGroup, GroupMeasures, Measure};
use crate::{
    Error, Result,
    alignment::Watermark,
    reproduce::{ReproduceRequest, reproduce},
};

/// Similarities (at most 2) that differ by less than this have no defined order: instruction sets sum in different
/// orders, and engines agree within 2e-6.
const ROUNDING: f32 = 1e-5;

/// Number of threads of an evaluation; its memory depends on it.
const THREADS: usize = 2;

/// Evaluates an embedded entry on its drawn test split with the pure-Rust engine, which every build has: its hits, and
/// the peak memory of the process. Call it once per process: earlier work changes the memory.
///
/// # Errors
/// Those of [`reproduce`].
pub fn evaluation(entry: &Entry) -> Result<[GroupMeasures; 2]> {
    // Draw the data first: that is not part of the evaluation.
    let paths = embedded::data_paths(entry, None, None)?;
    let folder = TemporaryFolder::create()
        .map_err(|source| Error::Write { path: std::env::temp_dir(), source: source.into() })?;
    let sims = folder.path().join("sims.safetensors");
    let request =
        ReproduceRequest { threads: THREADS, sims: Some(sims.clone()), ..ReproduceRequest::new(entry.clone()) };
    let mark = Watermark::reset();
    reproduce(&request, &AtomicBool::new(false), &())?;
    let memory = match mark.peak() {
        Some(bytes) => Ok(vec![Measure::new(format!("{}/bytes", entry.name), bytes as f64)]),
        None => Err("this system does not report the peak memory of a process".to_owned()),
    };
    let hits = hits_of(entry, &paths.captions, &sims)?;
    Ok([
        GroupMeasures { group: GateGroup::Memory, measures: memory },
        GroupMeasures::measured(GateGroup::Recalls, hits),
    ])
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

/// Hits of the entry `name` at 1, 5 and 10 in both directions, from its similarity matrix.
///
/// # Errors
/// [`laps_align::RetrievalError::Size`] if the sizes differ.
pub(super) fn recalls(name: &str, scores: &Scores, captions: &CaptionImages) -> Result<Vec<Measure>> {
    let found = hits(scores, captions, ROUNDING)?;
    let measure = |direction: &str, k: usize, hits: &Hits| Measure {
        name: format!("{name}/{direction}/hits among the first {k}"),
        value: hits.found as f64,
        bounds: Some([hits.certain as f64, hits.possible as f64]),
    };
    let sides = [("image to text", found.i2t), ("text to image", found.t2i)];
    let measures = sides.iter().flat_map(|(direction, hits)| {
        TOP_K.iter().zip(hits).map(|(&k, hits)| measure(direction, k, hits)).collect::<Vec<_>>()
    });
    Ok(measures.collect())
}
