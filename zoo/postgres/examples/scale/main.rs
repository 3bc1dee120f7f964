//! Loads synthetic items with several writers, and measures candidates of the HNSW index against all vectors:
//!
//! ```sh
//! cargo run --release -p laps-postgres --example scale -- postgres://me@localhost/test?collection=scale 100000 8
//! ```
//!
//! It can be killed at any time; run again, it continues. Every item is checked at the end.

mod items;

use std::{thread, time::Instant};

use items::{Items, Result};
use laps_postgres::{Collection, DatabaseAddress, import_index};
use laps_search::{Filter, Index};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: DatabaseAddress = arguments.next().ok_or("the address of a collection is missing")?.parse()?;
    let count: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let writers: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let items = Items { count };
    let folder = tempfile::tempdir()?;

    let part = count.div_ceil(writers);
    let mut files = Vec::new();
    for writer in 0..writers {
        let path = folder.path().join(format!("{writer}.index"));
        items.write(&path, writer * part..((writer + 1) * part).min(count))?;
        files.push(path);
    }
    println!("{count} items in {writers} index files");

    let rare = items.rare();
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
    items.check(&collection)?;
    println!("each of {count} items is stored once, with its own embeddings");
    println!("all, {}", items.measure(&collection, None)?);
    let filter = Filter::parse(&["rare = true"])?;
    println!("with `rare = true`, {}", items.measure(&collection, Some(&filter))?);
    Ok(())
}
