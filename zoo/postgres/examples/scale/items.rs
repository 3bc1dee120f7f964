//! Synthetic items: pooled vectors in clusters, and embeddings that tell the number of their item.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use half::f16;
use laps_data::image::Preprocessing;
use laps_model::{
    heads::{HeadConfig, HeadSizes},
    random::SplitMix64,
};
use laps_search::{
    FileStamp, Filter, IndexDescription, IndexItem, IndexKind, IndexPrecision, IndexWriter, ModelUsed, Store,
    StoredItem,
};
use serde_json::{Map, Value};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SIZES: HeadSizes = HeadSizes { tokens: 2, has_class_token: true, width: 512, word_width: 512 };
/// Candidates of a search.
const CANDIDATES: usize = 200;
/// Searches of a measurement.
const QUERIES: usize = 50;
/// More candidates than the index of vectors is asked for: all vectors are compared.
const EXACT: usize = 1001;
/// Items of a cluster, roughly: photos of a collection are alike in groups.
const CLUSTER: usize = 100;
/// Items whose metadata are `{"rare": true}`.
pub(crate) const RARE: usize = 20;

/// The items of a collection.
#[derive(Clone, Copy)]
pub(crate) struct Items {
    pub(crate) count: usize,
}

impl Items {
    /// A vector of norm 1 near the centre of a random cluster. That of an item has its number as the seed.
    pub(crate) fn pooled(self, seed: u64) -> Vec<f32> {
        // Values have mean 0.
        let vector = |random: &mut SplitMix64| -> Vec<f32> {
            (0..SIZES.width).map(|_| (random.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
        };
        let mut random = SplitMix64::new(seed);
        let cluster = random.bits() % (self.count / CLUSTER).max(1) as u64;
        let centre = vector(&mut SplitMix64::new(cluster << 32));
        let mut pooled: Vec<f32> =
            centre.iter().zip(vector(&mut random)).map(|(centre, noise)| centre + 0.7 * noise).collect();
        let norm = pooled.iter().map(|value| value * value).sum::<f32>().sqrt();
        pooled.iter_mut().for_each(|value| *value /= norm);
        pooled
    }

    /// Writes an index file of some items.
    pub(crate) fn write(self, path: &Path, numbers: Range<usize>) -> Result<()> {
        let model = ModelUsed {
            entry: "synthetic".to_owned(),
            head: HeadConfig::Laps,
            config_sha256: "0".repeat(64),
            checkpoint_sha256: "0".repeat(64),
            engine: "none".to_owned(),
        };
        let description =
            IndexDescription::new(IndexKind::Images, model, Preprocessing::imagenet(224), &SIZES, IndexPrecision::Half);
        let mut writer = IndexWriter::create(path, description)?;
        for number in numbers {
            let stamp = FileStamp { bytes: 1, seconds: 0, nanoseconds: number as u32 };
            // The number of the item in two values that fp16 represents, so that a mix-up would show.
            let halves = [number / 1000, number % 1000].map(|part| f16::from_f32(part as f32).to_le_bytes());
            let embeddings = halves.concat().repeat(SIZES.tokens * SIZES.width / 2);
            let stored = StoredItem { embeddings, pooled: self.pooled(number as u64) };
            writer.push_stored(IndexItem { name: name(number), stamp: Some(stamp) }, stored)?;
        }
        Ok(writer.finish()?)
    }

    /// Metadata of the rare items.
    pub(crate) fn rare(self) -> HashMap<String, Map<String, Value>> {
        let fields = || Map::from_iter([("rare".to_owned(), Value::Bool(true))]);
        let numbers = (0..self.count).step_by((self.count / RARE).max(1)).take(RARE);
        numbers.map(|number| (name(number), fields())).collect()
    }

    /// Checks that each item is stored once, with its own embeddings.
    pub(crate) fn check(self, store: &dyn Store) -> Result<()> {
        let all: Vec<usize> =
            store.nearest(&vec![0.0; SIZES.width], usize::MAX, None)?.iter().map(|near| near.item).collect();
        let mut names = HashSet::new();
        for chunk in all.chunks(2000) {
            for (found, embeddings) in store.names(chunk)?.into_iter().zip(store.embeddings(chunk)?) {
                let number = 1000 * embeddings.values()[0] as usize + embeddings.values()[1] as usize;
                if found != name(number) {
                    return Err(format!("`{found}` has the embeddings of item {number}").into());
                }
                names.insert(found);
            }
        }
        match (all.len(), names.len()) == (self.count, self.count) {
            true => Ok(()),
            false => {
                let (items, names) = (all.len(), names.len());
                Err(format!("expected {} items, found {items} with {names} names", self.count).into())
            }
        }
    }

    /// Compares candidates with those of comparing all vectors.
    pub(crate) fn measure(self, store: &dyn Store, filter: Option<&Filter>) -> Result<Candidates> {
        let matching = store.item_count(filter)?;
        let mut measured = Candidates { matching, found: 0, wanted: 0, times: Vec::new(), exact_times: Vec::new() };
        for query in 0..QUERIES {
            let query = self.pooled(u64::MAX / 2 + query as u64);
            let started = Instant::now();
            let candidates = store.nearest(&query, CANDIDATES, filter)?;
            measured.times.push(started.elapsed());
            let started = Instant::now();
            let exact = store.nearest(&query, EXACT, filter)?;
            measured.exact_times.push(started.elapsed());
            let candidates: HashSet<usize> = candidates.iter().map(|near| near.item).collect();
            measured.wanted += exact.len().min(CANDIDATES);
            measured.found += exact.iter().take(CANDIDATES).filter(|near| candidates.contains(&near.item)).count();
        }
        measured.times.sort();
        measured.exact_times.sort();
        Ok(measured)
    }
}

/// The candidates of some searches, and the time that they took.
pub(crate) struct Candidates {
    /// Items that match the filter.
    matching: usize,
    /// Candidates that are among the nearest items.
    pub(crate) found: usize,
    /// The nearest items.
    pub(crate) wanted: usize,
    /// Ascending, of each search.
    times: Vec<Duration>,
    /// Ascending, of each comparison with all vectors.
    exact_times: Vec<Duration>,
}

impl fmt::Display for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matching, found, wanted, times, exact_times } = self;
        let milliseconds = |times: &[Duration], percent: usize| {
            times.get(times.len().saturating_sub(1) * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let (p50, p99, exact) = (milliseconds(times, 50), milliseconds(times, 99), milliseconds(exact_times, 50));
        write!(f, "{matching} items: {found} of {wanted} candidates found; ")?;
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms, comparing all vectors p50 {exact:.1} ms")
    }
}

fn name(number: usize) -> String {
    format!("{number:08}.jpg")
}
