//! Writing items in chunks.

use std::collections::{HashMap, HashSet};

use laps_files::sha256;
use laps_search::{FileStamp, IndexItem, Result, StoredItem};
use pgvector::HalfVector;
use postgres::{
    Client, binary_copy::BinaryCopyInWriter, fallible_iterator::FallibleIterator, types::ToSql, types::Type,
};
use serde_json::{Map, Value};

use crate::{Collection, collection::text, error::WorkError};

/// Items of a chunk, which is committed at once.
pub(crate) const CHUNK_ITEMS: usize = 512;

/// Size from which a chunk has fewer items, in bytes.
const CHUNK_BYTES: usize = 32 << 20;

/// Metadata of items by name: objects of JSON.
pub type Metadata = HashMap<String, Map<String, Value>>;

/// An item that is already in a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownItem {
    pub(crate) stamp: Option<FileStamp>,
    pub(crate) content: Option<[u8; 32]>,
}

/// An item that waits to be written.
struct PendingItem {
    item: IndexItem,
    content: Option<[u8; 32]>,
    stored: StoredItem,
    metadata: String,
}

/// Adds items to a collection, and replaces those of the same name whose content or file has changed. Every chunk is a
/// transaction of its own: after an interruption the committed items are there, and the same work continues with the rest.
pub(crate) struct Writer<'a> {
    collection: &'a Collection,
    metadata: &'a Metadata,
    pending: Vec<PendingItem>,
    names: HashSet<String>,
    bytes: usize,
    pub(crate) written: usize,
}

const COLUMNS: &str = "name, content_sha256, file_bytes, file_seconds, file_nanoseconds, pooled, embeddings, metadata";

impl<'a> Writer<'a> {
    pub(crate) fn new(collection: &'a Collection, metadata: &'a Metadata) -> Self {
        Self { collection, metadata, pending: Vec::new(), names: HashSet::new(), bytes: 0, written: 0 }
    }

    /// Adds an item; of items of the same name in a chunk, the first one counts.
    pub(crate) fn push(&mut self, item: IndexItem, content: Option<[u8; 32]>, stored: StoredItem) -> Result<()> {
        if !self.names.insert(item.name.clone()) {
            return Ok(());
        }
        let metadata = match self.metadata.get(&item.name) {
            Some(fields) => Value::Object(fields.clone()).to_string(),
            None => "{}".to_owned(),
        };
        self.bytes += stored.embeddings.len() + 4 * stored.pooled.len();
        self.pending.push(PendingItem { item, content, stored, metadata });
        match self.pending.len() >= CHUNK_ITEMS || self.bytes >= CHUNK_BYTES {
            true => self.commit(),
            false => Ok(()),
        }
    }

    /// Commits the pending items.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            let table = self.collection.table();
            self.collection.connection.run("write items", |client| load(client, &table, &self.pending))?;
        }
        self.written += self.pending.len();
        self.pending.clear();
        self.names.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn load(client: &mut Client, table: &str, items: &[PendingItem]) -> Result<(), WorkError> {
    let mut transaction = client.transaction()?;
    // COPY cannot skip rows that exist, so it fills a table of the session.
    transaction.batch_execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS staged_items (
            position integer, name bytea, content_sha256 bytea, file_bytes bigint, file_seconds bigint,
            file_nanoseconds integer, pooled halfvec, embeddings bytea, metadata text
        ) ON COMMIT DELETE ROWS",
    )?;
    let select = transaction.prepare(&format!("SELECT position, {COLUMNS} FROM staged_items LIMIT 0"))?;
    let types: Vec<Type> = select.columns().iter().map(|column| column.type_().clone()).collect();
    let copy = format!("COPY staged_items (position, {COLUMNS}) FROM STDIN BINARY");
    let mut writer = BinaryCopyInWriter::new(transaction.copy_in(&copy)?, &types);
    for (position, PendingItem { item, content, stored, metadata }) in (0i32..).zip(items) {
        let name = item.name.as_bytes();
        let content = content.as_ref().map(<[u8; 32]>::as_slice);
        let bytes = item.stamp.map(|stamp| stamp.bytes.cast_signed());
        let seconds = item.stamp.map(|stamp| stamp.seconds);
        let nanoseconds = item.stamp.map(|stamp| stamp.nanoseconds.cast_signed());
        let pooled = HalfVector::from_f32_slice(&stored.pooled);
        let embeddings = stored.embeddings.as_slice();
        let row: [&(dyn ToSql + Sync); 9] =
            [&position, &name, &content, &bytes, &seconds, &nanoseconds, &pooled, &embeddings, metadata];
        writer.write(&row)?;
    }
    writer.finish()?;
    // In the order of the chunk, which the numbers of the items follow. Writers of the same folder lock rows in the same
    // order; others may deadlock, and then one of them repeats its chunk.
    transaction.execute(
        &format!(
            "INSERT INTO {table} AS old ({COLUMNS})
             SELECT name, content_sha256, file_bytes, file_seconds, file_nanoseconds, pooled, embeddings, metadata::jsonb
             FROM staged_items ORDER BY position
             ON CONFLICT (sha256(name)) DO UPDATE SET
                 content_sha256 = excluded.content_sha256, file_bytes = excluded.file_bytes,
                 file_seconds = excluded.file_seconds, file_nanoseconds = excluded.file_nanoseconds,
                 pooled = excluded.pooled, embeddings = excluded.embeddings,
                 metadata = CASE WHEN excluded.metadata = '{{}}' THEN old.metadata ELSE excluded.metadata END
             WHERE (old.content_sha256, old.file_bytes, old.file_seconds, old.file_nanoseconds)
                 IS DISTINCT FROM
                 (excluded.content_sha256, excluded.file_bytes, excluded.file_seconds, excluded.file_nanoseconds)
                 OR excluded.content_sha256 IS NULL AND excluded.file_bytes IS NULL"
        ),
        &[],
    )?;
    transaction.commit()?;
    Ok(())
}

impl Collection {
    /// All items by name.
    pub(crate) fn known_items(&self) -> Result<HashMap<String, KnownItem>> {
        let statement =
            format!("SELECT name, content_sha256, file_bytes, file_seconds, file_nanoseconds FROM {}", self.table());
        self.connection.run("read the names of items", |client| {
            let mut known = HashMap::new();
            let mut rows = client.query_raw(&statement, std::iter::empty::<i32>())?;
            while let Some(row) = rows.next()? {
                let content: Option<&[u8]> = row.get(1);
                let item = KnownItem {
                    stamp: stamp(row.get(2), row.get(3), row.get(4)),
                    content: content.and_then(|bytes| bytes.try_into().ok()),
                };
                known.insert(text(row.get(0)), item);
            }
            Ok(known)
        })
    }

    /// Stores `item` with the embeddings and metadata of another item with the same content, or updates the stamp of
    /// `item` itself. Returns whether there is such an item.
    pub(crate) fn copy_content(&self, item: &IndexItem, content: &[u8; 32], metadata: &Metadata) -> Result<bool> {
        let table = self.table();
        let statement = format!(
            "INSERT INTO {table} AS old ({COLUMNS})
             SELECT $1, content_sha256, $3, $4, $5, pooled, embeddings, coalesce($6::text::jsonb, metadata)
             FROM {table} WHERE content_sha256 = $2 ORDER BY name = $1 DESC, id LIMIT 1
             ON CONFLICT (sha256(name)) DO UPDATE SET
                 content_sha256 = excluded.content_sha256, file_bytes = excluded.file_bytes,
                 file_seconds = excluded.file_seconds, file_nanoseconds = excluded.file_nanoseconds,
                 pooled = excluded.pooled, embeddings = excluded.embeddings, metadata = excluded.metadata"
        );
        let metadata = metadata.get(&item.name).map(|fields| Value::Object(fields.clone()).to_string());
        let bytes = item.stamp.map(|stamp| stamp.bytes.cast_signed());
        let seconds = item.stamp.map(|stamp| stamp.seconds);
        let nanoseconds = item.stamp.map(|stamp| stamp.nanoseconds.cast_signed());
        self.connection.run("copy an item", |client| {
            let name = item.name.as_bytes();
            let rows =
                client.execute(&statement, &[&name, &content.as_slice(), &bytes, &seconds, &nanoseconds, &metadata])?;
            Ok(rows > 0)
        })
    }

    /// Replaces the metadata of items that have other ones.
    pub(crate) fn update_metadata(&self, metadata: &Metadata) -> Result<()> {
        let statement = format!(
            "UPDATE {} AS old SET metadata = new.metadata::jsonb
             FROM unnest($1::bytea[], $2::text[]) AS new (name, metadata)
             WHERE sha256(old.name) = sha256(new.name) AND old.metadata <> new.metadata::jsonb",
            self.table()
        );
        let mut items: Vec<(&String, &Map<String, Value>)> = metadata.iter().collect();
        // Two writers lock rows in the same order.
        items.sort_by_key(|&(name, _)| name);
        for chunk in items.chunks(CHUNK_ITEMS) {
            let names: Vec<&[u8]> = chunk.iter().map(|(name, _)| name.as_bytes()).collect();
            let texts: Vec<String> =
                chunk.iter().map(|&(_, fields)| Value::Object(fields.clone()).to_string()).collect();
            self.connection.run("write metadata", |client| {
                client.execute(&statement, &[&names, &texts])?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Deletes items by name. Returns how many there were.
    pub(crate) fn delete(&self, names: &[&str]) -> Result<usize> {
        let statement = format!("DELETE FROM {} WHERE sha256(name) = ANY($1)", self.table());
        let mut deleted = 0;
        for chunk in names.chunks(CHUNK_ITEMS) {
            let keys: Vec<[u8; 32]> = chunk.iter().map(|name| sha256(name.as_bytes())).collect();
            let keys: Vec<&[u8]> = keys.iter().map(<[u8; 32]>::as_slice).collect();
            deleted += self.connection.run("delete items", |client| Ok(client.execute(&statement, &[&keys])?))?;
        }
        Ok(deleted as usize)
    }
}

fn stamp(bytes: Option<i64>, seconds: Option<i64>, nanoseconds: Option<i32>) -> Option<FileStamp> {
    Some(FileStamp { bytes: bytes?.cast_unsigned(), seconds: seconds?, nanoseconds: nanoseconds?.cast_unsigned() })
}
