//! `laps-zoo index` between an index file and a database, without a model.

use std::path::Path;

use anyhow::Result;
use laps_bench::progress::StageProgress;
use laps_files::path_to_text;
use laps_postgres::{Collection, DatabaseAddress, Metadata, export_index, import_index};
use laps_search::{Index, IndexKind, ModelUsed, Store};
use serde::Serialize;

use crate::{progress, report::print};

/// The output of `--json`.
#[derive(Serialize)]
struct TransferOutput<'a> {
    schema: u32,
    index: String,
    source: String,
    kind: IndexKind,
    model: &'a ModelUsed,
    items: usize,
}

/// Copies an index file into a database.
pub(crate) fn import(
    file: &Path,
    address: DatabaseAddress,
    metadata: &Metadata,
    json: bool,
    quiet: bool,
) -> Result<()> {
    let index = Index::open(file)?;
    let progress_bar = progress::choose(quiet);
    let count = index.item_count(None)?;
    let stage = StageProgress::begin(progress_bar.as_ref(), "copy", count);
    let copied = import_index(&index, address, metadata, &|count| stage.advance(count));
    let (collection, summary) = copied.map_err(laps::Error::from)?;
    stage.end(&format!("{count} {}", index.description().kind));
    finish(&collection, collection.location(), file, summary.index.items, json)
}

/// Copies a collection into an index file.
pub(crate) fn export(address: DatabaseAddress, out: &Path, json: bool, quiet: bool) -> Result<()> {
    let collection = Collection::open(address).map_err(laps::Error::from)?;
    let progress_bar = progress::choose(quiet);
    let count = collection.item_count(None).map_err(laps::Error::from)?;
    let stage = StageProgress::begin(progress_bar.as_ref(), "copy", count);
    let count = export_index(&collection, out, &|count| stage.advance(count)).map_err(laps::Error::from)?;
    stage.end(&format!("{count} {}", collection.description().kind));
    finish(&collection, out, collection.location(), count, json)
}

fn finish(collection: &Collection, index: &Path, source: &Path, items: usize, json: bool) -> Result<()> {
    let kind = collection.description().kind;
    if json {
        let output = TransferOutput {
            schema: 1,
            index: path_to_text(index),
            source: path_to_text(source),
            kind,
            model: &collection.description().model,
            items,
        };
        return print(&format!("{}\n", serde_json::to_string_pretty(&output)?));
    }
    print(&format!("{items} {kind} in `{}`, copied from `{}`\n", index.display(), source.display()))
}
