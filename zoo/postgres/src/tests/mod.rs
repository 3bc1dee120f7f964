//! Tests against a real server.

mod filters;
mod loading;
#[allow(dead_code)] // these tests use a part of the samples of laps-align
#[path = "../../../align/src/similarity/tests/samples.rs"]
mod samples;
mod scale;
mod searching;
mod server;
#[path = "../../../search/src/tests/small_model.rs"]
mod small_model;
#[path = "../../examples/scale/items.rs"]
mod synthetic;
mod tls;
mod versions;

use std::path::Path;

use crate::{DatabaseAddress, Metadata};
use laps_model::array::Array;
use laps_search::{FileStamp, Index, IndexDescription, IndexItem, IndexKind, IndexPrecision, IndexWriter, ModelUsed};
use server::PostgresServer;
use small_model::{captions, description, engine, images};

/// Name of an item; names are in the order of their numbers.
fn name(number: usize) -> String {
    format!("item {number:05}")
}

fn item(number: usize) -> IndexItem {
    let stamp = FileStamp { bytes: 7, seconds: -1, nanoseconds: number as u32 };
    IndexItem { name: name(number), stamp: Some(stamp) }
}

/// An index file of items.
fn index(path: &Path, kind: IndexKind, precision: IndexPrecision, items: &[Array]) -> Index {
    let description = description(kind, precision);
    let mut writer = IndexWriter::create(path, description.clone()).unwrap();
    for (number, embeddings) in items.iter().enumerate() {
        let item = match kind {
            IndexKind::Images => item(number),
            IndexKind::Captions => IndexItem { name: name(number), stamp: None },
        };
        let stored = description.encode_item(&item.name, embeddings.values()).unwrap();
        writer.push_stored(item, stored).unwrap();
    }
    writer.finish().unwrap();
    Index::open(path).unwrap()
}

/// The address of a collection in the database `postgres`.
fn address(server: &PostgresServer, collection: &str) -> DatabaseAddress {
    server.address("postgres", "postgres", collection).parse().unwrap()
}

/// Metadata of items by number.
fn metadata(count: usize, of: impl Fn(usize) -> serde_json::Value) -> Metadata {
    (0..count).map(|number| (name(number), of(number).as_object().unwrap().clone())).collect()
}

/// The error of an operation as users see it, without the folder of the server.
fn error<T>(result: laps_search::Result<T>) -> String {
    let error = result.err().unwrap();
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let text = format!("{error}{hint}");
    let start = text.find("host=").unwrap();
    let end = start + text[start..].find('&').unwrap();
    format!("{}host=FOLDER{}", &text[..start], &text[end..])
}
