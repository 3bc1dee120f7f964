//! Tests of index files, search and indexing.

mod building;
mod files;
mod folders;
#[allow(dead_code)] // these tests use a part of the samples of laps-align
#[path = "../../../align/src/similarity/tests/samples.rs"]
mod samples;
mod searching;
mod segments;
mod sharding;
mod small_model;

use std::path::Path;

use super::{IndexDescription, IndexItem, IndexKind, IndexPrecision, ModelUsed, index_writer::IndexWriter};
use laps_model::array::Array;
use small_model::{ENCODED, SIZES, captions, description, description_of, engine, images};

fn write(path: &Path, kind: IndexKind, precision: IndexPrecision, items: &[Array]) {
    write_with(path, description(kind, precision), items);
}

fn write_with(path: &Path, description: IndexDescription, items: &[Array]) {
    let mut writer = IndexWriter::create(path, description).unwrap();
    for (index, embeddings) in items.iter().enumerate() {
        writer.push(IndexItem { name: format!("item {index}"), stamp: None }, embeddings.values()).unwrap();
    }
    writer.finish().unwrap();
}
