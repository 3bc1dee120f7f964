//! Loads synthetic items with several writers, and measures candidates of the HNSW index against all vectors:
//!
//! ```sh
//! cargo run --release -p laps-postgres --example scale -- postgres://me@localhost/test?collection=scale 100000 8
//! ```
//!
//! It can be killed at any time; run again, it continues. Every item is checked at the end.

use std::{collections::HashSet, path::Path, thread, time::Instant};

use half::f16;
use laps_data::image::Preprocessing;
use laps_model::heads::{HeadConfig, HeadSizes};
use laps_postgres::{Collection, DatabaseAddress, Metadata, import_index};
use laps_search::{
    FileStamp, Filter, Index, IndexDescription, IndexItem, IndexKind, IndexPrecision, IndexWriter, ModelUsed, Store,
    StoredItem,
};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SIZES: HeadSizes = HeadSizes { tokens: 2, has_class_token: true, width: 512, word_width: 512 };
const CANDIDATES: usize = 200;
const QUERIES: usize = 50;
/// Items of a cluster, roughly: photos of a collection are alike in groups.
const CLUSTER: usize = 100;
/// Every item with a number that this divides is rare.
const RARE: usize = 5000;

/// A sequence of pseudo-random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A vector whose values have mean 0.
    fn vector(&mut self) -> Vec<f32> {
        (0..SIZES.width).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// A vector of norm 1 near the centre of a random cluster.
fn pooled(seed: u64, clusters: usize) -> Vec<f32> {
    let mut random = Random(seed);
    let cluster = random.next() % clusters as u64;
    let centre = Random(cluster << 32).vector();
    let mut vector: Vec<f32> = centre.iter().zip(random.vector()).map(|(centre, noise)| centre + 0.7 * noise).collect();
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= norm);
    vector
}

fn name(number: usize) -> String {
    format!("{number:08}.jpg")
}

fn write_index(path: &Path, numbers: std::ops::Range<usize>, clusters: usize) -> Result<()> {
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
        let stored = StoredItem { embeddings, pooled: pooled(number as u64, clusters) };
        writer.push_stored(IndexItem { name: name(number), stamp: Some(stamp) }, stored)?;
    }
    Ok(writer.finish()?)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: DatabaseAddress = arguments.next().ok_or("the address of a collection is missing")?.parse()?;
    let count: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let writers: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let clusters = (count / CLUSTER).max(1);
    let folder = tempfile::tempdir()?;

    let part = count.div_ceil(writers);
    let mut files = Vec::new();
    for writer in 0..writers {
        let path = folder.path().join(format!("{writer}.index"));
        write_index(&path, writer * part..((writer + 1) * part).min(count), clusters)?;
        files.push(path);
    }
    println!("{count} items in {writers} index files");

    let rare = (0..count).step_by(RARE).map(name);
    let rare: Metadata =
        rare.map(|name| (name, json!({"rare": true}).as_object().cloned().unwrap_or_default())).collect();
    let started = Instant::now();
    thread::scope(|scope| {
        let loads = files.iter().map(|path| {
            let (address, rare) = (address.clone(), &rare);
            scope.spawn(move || -> Result<()> {
                let index = Index::open(path)?;
                import_index(&index, address, rare, &|_| ())?;
                Ok(())
            })
        });
        let loads: Vec<_> = loads.collect();
        loads.into_iter().try_for_each(|load| load.join().map_err(|_| "a writer panicked")?)
    })?;
    println!("loaded, with the index of vectors, in {:.1} s", started.elapsed().as_secs_f64());

    let collection = Collection::open(address)?;
    check(&collection, count)?;
    println!("each of {count} items is stored once, with its own embeddings");
    measure(&collection, clusters, None, "all items")?;
    measure(&collection, clusters, Some(&Filter::parse(&["rare = true"])?), "items with `rare = true`")
}

fn check(collection: &Collection, count: usize) -> Result<()> {
    let all: Vec<usize> =
        collection.nearest(&vec![0.0; SIZES.width], usize::MAX, None)?.iter().map(|near| near.item).collect();
    let mut names = HashSet::new();
    for chunk in all.chunks(2000) {
        let expected = collection.names(chunk)?;
        for (name, embeddings) in expected.into_iter().zip(collection.embeddings(chunk)?) {
            let number = 1000 * embeddings.values()[0] as usize + embeddings.values()[1] as usize;
            if name != self::name(number) {
                return Err(format!("`{name}` has the embeddings of item {number}").into());
            }
            names.insert(name);
        }
    }
    match (all.len(), names.len()) == (count, count) {
        true => Ok(()),
        false => Err(format!("expected {count} items, found {} with {} names", all.len(), names.len()).into()),
    }
}

fn measure(collection: &Collection, clusters: usize, filter: Option<&Filter>, what: &str) -> Result<()> {
    let matching = collection.item_count(filter)?;
    let (mut found, mut wanted) = (0, 0);
    let (mut times, mut exact_times) = (Vec::new(), Vec::new());
    for query in 0..QUERIES {
        let query = pooled(u64::MAX / 2 + query as u64, clusters);
        let started = Instant::now();
        let candidates = collection.nearest(&query, CANDIDATES, filter)?;
        times.push(started.elapsed());
        let started = Instant::now();
        // More than the HNSW index is asked for: all vectors are compared.
        let exact = collection.nearest(&query, 1001, filter)?;
        exact_times.push(started.elapsed());
        let candidates: HashSet<usize> = candidates.iter().map(|near| near.item).collect();
        wanted += exact.len().min(CANDIDATES);
        found += exact.iter().take(CANDIDATES).filter(|near| candidates.contains(&near.item)).count();
    }
    times.sort();
    exact_times.sort();
    let milliseconds =
        |times: &[std::time::Duration], share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!(
        "{what} ({matching}): {found} of {wanted} candidates found; p50 {:.1} ms, p99 {:.1} ms, comparing all vectors p50 {:.1} ms",
        milliseconds(&times, 50),
        milliseconds(&times, 99),
        milliseconds(&exact_times, 50)
    );
    Ok(())
}
