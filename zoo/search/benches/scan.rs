//! Candidates among a million pooled vectors of width 512 in an index file:
//!
//! ```sh
//! cargo bench -p laps-search --bench scan [-- ITEMS]
//! ```
//!
//! Compares them with those of a scan in f64, and prints the time to open the index, to add one item, the median and slowest
//! search, and on Linux the peak memory of a search.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at what is not as it should be")]

use std::time::{Duration, Instant};

use half::f16;
use laps_data::image::Preprocessing;
use laps_model::heads::{HeadConfig, HeadSizes};
use laps_search::{
    FileStamp, Index, IndexDescription, IndexItem, IndexKind, IndexPrecision, IndexWriter, ModelUsed, Store, StoredItem,
};

const SIZES: HeadSizes = HeadSizes { tokens: 1, has_class_token: false, width: 512, word_width: 512 };
const CANDIDATES: usize = 200;
const SEARCHES: usize = 21;
/// Items that are added, each by itself.
const CHANGES: u64 = 11;

/// A vector of norm 1 (SplitMix64).
fn vector(seed: u64) -> Vec<f32> {
    let mut state = seed << 32;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((value ^ (value >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut vector: Vec<f32> = (0..SIZES.width).map(|_| next()).collect();
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= norm);
    vector
}

/// Resets the peak of the resident memory of this process. None if the system does not tell it.
fn reset_peak() -> Option<usize> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    kilobytes("VmRSS:")
}

/// A size of this process in KiB, as Linux names it.
fn kilobytes(name: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()
}

fn main() {
    // cargo passes `--bench` too.
    let items = std::env::args().skip(1).find_map(|text| text.parse::<u64>().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.index");
    let model = ModelUsed {
        head: HeadConfig::Laps,
        entry: "synthetic".to_owned(),
        config_sha256: "0".repeat(64),
        checkpoint_sha256: "0".repeat(64),
        engine: "none".to_owned(),
    };
    let description =
        IndexDescription::new(IndexKind::Images, model, Preprocessing::imagenet(224), &SIZES, IndexPrecision::Half);
    let mut writer = IndexWriter::create(&path, description).unwrap();
    let stored = |pooled| StoredItem { embeddings: vec![0; SIZES.tokens * SIZES.width * 2], pooled };
    let named = |item: u64| IndexItem {
        name: format!("{item:08}.jpg"),
        stamp: Some(FileStamp { bytes: 1, seconds: 0, nanoseconds: 0 }),
    };
    let query = vector(items);
    let mut exact: Vec<(f64, usize)> = Vec::with_capacity(items as usize);
    for item in 0..items {
        let pooled = vector(item);
        let halves = pooled.iter().map(|&value| f64::from(f16::from_f32(value)));
        exact.push((halves.zip(&query).map(|(a, &b)| a * f64::from(b)).sum(), item as usize));
        writer.push_stored(named(item), stored(pooled)).unwrap();
    }
    writer.finish().unwrap();

    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let median = |mut times: Vec<Duration>| {
        times.sort();
        milliseconds(times[times.len() / 2])
    };
    let timed = |operation: &mut dyn FnMut()| {
        let started = Instant::now();
        operation();
        started.elapsed()
    };
    // Items of a vector that is as far from the query as possible, so that they are no candidates.
    let far: Vec<f32> = query.iter().map(|value| -value).collect();
    let added: Vec<Duration> = (items..items + CHANGES)
        .map(|item| {
            timed(&mut || {
                let mut writer = IndexWriter::append(&Index::open(&path).unwrap(), &[]).unwrap();
                writer.push_stored(named(item), stored(far.clone())).unwrap();
                writer.finish().unwrap();
            })
        })
        .collect();
    let opened: Vec<Duration> = (0..CHANGES).map(|_| timed(&mut || drop(Index::open(&path).unwrap()))).collect();
    let index = Index::open(&path).unwrap();
    let [opened, added] = [opened, added].map(median);
    println!("{items} items: opened in {opened:.2} ms, one item added in {added:.1} ms (medians)");
    let mut times: Vec<Duration> = Vec::new();
    let mut found = Vec::new();
    let before = reset_peak();
    for _ in 0..SEARCHES {
        let started = Instant::now();
        found = index.nearest(&query, CANDIDATES, None).unwrap();
        times.push(started.elapsed());
    }
    if let (Some(before), Some(peak)) = (before, kilobytes("VmHWM:")) {
        println!("peak memory of the searches: {} KiB", peak.saturating_sub(before));
    }
    // The first one reads the file into the system's cache.
    times[1..].sort();
    println!(
        "{CANDIDATES} candidates: median {:.1} ms, slowest {:.1} ms, first {:.1} ms",
        milliseconds(times[SEARCHES / 2]),
        milliseconds(times[SEARCHES - 1]),
        milliseconds(times[0])
    );

    // 512 products below 1, whose sums are rounded to f32: a difference that is no tie.
    const TIE: f64 = 1e-6;
    exact.sort_by(|a, b| b.0.total_cmp(&a.0));
    let last = exact[CANDIDATES - 1].0;
    let mut missed = 0;
    for &(cosine, item) in &exact[..CANDIDATES] {
        missed += usize::from(cosine > last + TIE && found.iter().all(|near| near.item != item));
    }
    assert_eq!((found.len(), missed), (CANDIDATES, 0), "candidates differ from those of a scan in f64");
    println!("equal to those of a scan in f64, but for ties");
}
