//! Copies between index files and collections.

use std::path::Path;

use laps_files::sha256;
use laps_search::{FileStamp, Index, IndexItem, IndexKind, IndexSummary, IndexWriter, Result, SearchError, StoredItem};
use pgvector::HalfVector;
use postgres::fallible_iterator::FallibleIterator;

use crate::{
    Collection, DatabaseAddress, LoadSummary,
    error::WorkError,
    writer::{Metadata, Writer},
};

/// Copies the items of an index file into a collection, which is created if it does not exist. Nothing is encoded. Items
/// that are there are not copied again. `progress` receives the number of items of each step.
///
/// # Errors
/// Those of [`Collection::create_or_open`], and of reading the file.
pub fn import_index(
    index: &Index,
    address: DatabaseAddress,
    metadata: &Metadata,
    progress: &dyn Fn(usize),
) -> Result<(Collection, LoadSummary)> {
    let collection = Collection::create_or_open(address, index.description().clone())?;
    collection.begin_writing()?;
    let known = collection.known_items()?;
    let is_new = |item: &IndexItem| match known.get(&item.name) {
        None => true,
        // A caption is its own content; the file of an image may have changed.
        Some(known) => {
            index.description().kind == IndexKind::Images && (item.stamp.is_none() || known.stamp != item.stamp)
        }
    };
    let (mut new, mut count) = (Vec::new(), 0);
    for number in index.numbers() {
        count += 1;
        if is_new(&index.item(number)?) {
            new.push(number);
        }
    }
    progress(count - new.len());
    let mut writer = Writer::new(&collection, metadata);
    for &number in &new {
        let item = index.item(number)?;
        let content = match index.description().kind {
            IndexKind::Captions => Some(sha256(item.name.as_bytes())),
            IndexKind::Images => None,
        };
        writer.push(item, content, index.stored(number)?)?;
        progress(1);
    }
    writer.commit()?;
    collection.update_metadata(metadata)?;
    collection.end_writing()?;
    let summary = IndexSummary { items: collection.count(None)?, kept: count, ..IndexSummary::default() };
    Ok((collection, LoadSummary { index: summary, removed: 0 }))
}

/// Copies the items of a collection into the index file `path`, in the order of an index file. The file has no metadata.
/// Returns the number of items.
///
/// # Errors
/// Those of the database and of writing the file.
pub fn export_index(collection: &Collection, path: &Path, progress: &dyn Fn(usize)) -> Result<usize> {
    let order = match collection.description.kind {
        IndexKind::Images => "name",
        IndexKind::Captions => "id",
    };
    let statement = format!(
        "SELECT name, file_bytes, file_seconds, file_nanoseconds, pooled, embeddings FROM {} ORDER BY {order}",
        collection.table()
    );
    collection.connection.run("read items", |client| {
        let mut writer = IndexWriter::create(path, collection.description.clone())?;
        let mut rows = client.query_raw(&statement, std::iter::empty::<i32>())?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let [bytes, seconds]: [Option<i64>; 2] = [row.get(1), row.get(2)];
            let nanoseconds: Option<i32> = row.get(3);
            let stamp = bytes.zip(seconds).zip(nanoseconds).map(|((bytes, seconds), nanoseconds)| FileStamp {
                bytes: bytes.cast_unsigned(),
                seconds,
                nanoseconds: nanoseconds.cast_unsigned(),
            });
            let stored = StoredItem {
                embeddings: row.get(5),
                pooled: row.get::<_, HalfVector>(4).as_slice().iter().map(|value| value.to_f32()).collect(),
            };
            writer.push_stored(IndexItem { name: crate::collection::text(row.get(0)), stamp }, stored)?;
            count += 1;
            progress(1);
        }
        if count == 0 {
            let (expected, found) = ("items".to_owned(), "none".to_owned());
            let path = collection.connection.address().location.clone();
            return Err(WorkError::from(SearchError::Empty { path, expected, found }));
        }
        writer.finish()?;
        Ok(count)
    })
}
