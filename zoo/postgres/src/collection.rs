//! Collections: the items of one index in a database.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use laps_model::array::Array;
use laps_search::{Filter, IndexDescription, Neighbor, Result, SearchError, Store};
use pgvector::HalfVector;
use postgres::{Client, fallible_iterator::FallibleIterator, types::ToSql};

use crate::{
    DatabaseAddress, Error,
    connection::Connection,
    error::WorkError,
    filter_sql::FilterSql,
    schema::{self, MIGRATIONS},
};

/// Number of items from which a collection has an HNSW index. Below it, comparing all vectors takes a few milliseconds and
/// finds the nearest ones for certain.
const INDEXED_ITEMS: usize = 10_000;

/// Largest number of candidates that the HNSW index is asked for: the maximum of `hnsw.ef_search`. More are found by
/// comparing all vectors.
const MAX_INDEX_CANDIDATES: usize = 1000;

/// `hnsw.ef_search` for each candidate. With 2, 8% of 200 candidates among 100,000 items were missed.
const SEARCH_FACTOR: usize = 4;

/// How long a number of items is reported after it was counted. Counting a million rows takes longer than a search.
const COUNT_AGE: Duration = Duration::from_secs(5);

/// The items of one index in a Postgres database: those of an index file, with a hash of their content and with metadata.
///
/// Pooled vectors have half precision, whatever the precision of the embeddings. Any number of processes may read and
/// write a collection at the same time. A collection serves one thread at a time. If the connection is lost, it is made
/// again.
pub struct Collection {
    pub(crate) connection: Connection,
    /// The number of the collection.
    pub(crate) id: i32,
    pub(crate) description: IndexDescription,
    count: Mutex<Option<(Instant, usize)>>,
}

impl Collection {
    /// Opens a collection.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Login`], [`Error::Extension`], [`Error::Version`] and [`Error::NoCollection`].
    pub fn open(address: DatabaseAddress) -> Result<Self> {
        let connection = Connection::open(address)?;
        schema::check(&connection)?;
        let name = connection.address().collection.clone();
        let found = connection.run("read the collection", |client| find(client, &name))?;
        let Some((id, text)) = found else {
            let existing = connection.run("read the collections", |client| {
                let rows = client.query("SELECT name FROM laps_zoo.collections ORDER BY name", &[])?;
                Ok(rows.iter().map(|row| format!("`{}`", row.get::<_, String>(0))).collect())
            })?;
            return Err(Error::NoCollection { location: connection.address().location.clone(), name, existing }.into());
        };
        let description = parse(&connection, &text)?;
        Ok(Self { connection, id, description, count: Mutex::default() })
    }

    /// Opens a collection to write items of `description`, and creates it if it does not exist. If `description` does not
    /// apply the EXIF orientation and the collection does, the collection's setting is kept.
    ///
    /// # Errors
    /// Those of [`Collection::open`]; [`SearchError::Kind`], [`SearchError::OtherModel`] and [`Error::Settings`] if the
    /// collection was created with another description.
    pub fn create_or_open(address: DatabaseAddress, mut description: IndexDescription) -> Result<Self> {
        let connection = Connection::open(address)?;
        schema::migrate(&connection, &MIGRATIONS)?;
        let location = connection.address().location.clone();
        let name = connection.address().collection.clone();
        let json = description.to_json();
        let (id, text) = connection.run("create the collection", |client| {
            if let Some(found) = find(client, &name)? {
                return Ok(found);
            }
            let mut transaction = client.transaction()?;
            let row = transaction.query_opt(
                "INSERT INTO laps_zoo.collections (name, description) VALUES ($1, $2::text::jsonb)
                 ON CONFLICT (name) DO NOTHING RETURNING id",
                &[&name, &json],
            )?;
            if let Some(row) = row {
                transaction.batch_execute(&items_table(row.get(0), description.width))?;
            }
            transaction.commit()?;
            // Another client may have been faster.
            find(client, &name)?.ok_or_else(|| {
                Error::NoCollection { location: location.clone(), name: name.clone(), existing: Vec::new() }.into()
            })
        })?;
        let stored = parse(&connection, &text)?;
        stored.check_kind(&location, description.kind)?;
        stored.check_model(&location, &description.model)?;
        description.exif_orientation |= stored.exif_orientation;
        if let Some((setting, expected, found)) = description.difference(&stored) {
            return Err(Error::Settings { location, setting, expected, found }.into());
        }
        Ok(Self { connection, id, description: stored, count: Mutex::default() })
    }

    /// Name of the table of the items. A number is the only part that varies.
    pub(crate) fn table(&self) -> String {
        table(self.id)
    }

    /// Announces that this process adds items.
    pub(crate) fn begin_writing(&self) -> Result<()> {
        self.connection.run("wait for the index of vectors", |client| Ok(schema::begin_writing(client, self.id)?))
    }

    /// Ends [`begin_writing`](Self::begin_writing). The last of several writers creates the HNSW index of the pooled
    /// vectors, if the collection is large enough to need one and has none: loading before this is many times faster than
    /// inserting into an indexed table.
    pub(crate) fn end_writing(&self) -> Result<()> {
        self.connection.run("end writing", |client| Ok(schema::end_writing(client, self.id)?))?;
        match self.count(None)? {
            count if count >= INDEXED_ITEMS => self.create_index(),
            _ => Ok(()),
        }
    }

    /// Creates the HNSW index of the pooled vectors if there is none, unless items are being added. Writers that begin wait
    /// until it is complete.
    pub(crate) fn create_index(&self) -> Result<()> {
        let (table, name) = (self.table(), format!("items_{}_pooled", self.id));
        let row_bytes = 2 * self.description.width + 512;
        let kilobytes = (self.count(None)?.saturating_mul(row_bytes) / 1024 * 5 / 4).clamp(1 << 16, 1 << 21);
        self.connection.run("create the index of vectors", |client| {
            let mut transaction = client.transaction()?;
            if !schema::lock_writing(&mut transaction, self.id)? {
                return Ok(());
            }
            // Without room for the whole graph the build is several times slower.
            transaction.batch_execute(&format!("SET LOCAL maintenance_work_mem = '{kilobytes}kB'"))?;
            transaction.batch_execute(&format!(
                "CREATE INDEX IF NOT EXISTS {name} ON {table} USING hnsw (pooled halfvec_ip_ops)"
            ))?;
            transaction.commit()?;
            // Statistics decide whether the planner uses it.
            client.batch_execute(&format!("ANALYZE {table}"))?;
            Ok(())
        })
    }

    /// Counts the items that match `filter`.
    pub(crate) fn count(&self, filter: Option<&Filter>) -> Result<usize> {
        let sql = FilterSql::new(filter, 1);
        let statement = format!("SELECT count(*) FROM {} WHERE {}", self.table(), sql.condition);
        self.connection.run("count items", |client| {
            let row = client.query_one(&statement, &sql.parameters().collect::<Vec<_>>())?;
            Ok(row.get::<_, i64>(0) as usize)
        })
    }

    /// Runs a query of items by number, and maps each row to a value. The first column is the number.
    fn by_number<T>(
        &self,
        column: &str,
        items: &[usize],
        map: impl Fn(&[u8]) -> Result<T>,
    ) -> Result<HashMap<usize, T>> {
        let statement = format!("SELECT id, {column} FROM {} WHERE id = ANY($1)", self.table());
        let numbers: Vec<i64> = items.iter().filter_map(|&item| i64::try_from(item).ok()).collect();
        self.connection.run("read items", |client| {
            let mut values = HashMap::with_capacity(items.len());
            let mut rows = client.query_raw(&statement, [&numbers])?;
            while let Some(row) = rows.next()? {
                values.insert(row.get::<_, i64>(0) as usize, map(row.get(1))?);
            }
            Ok(values)
        })
    }
}

impl Store for Collection {
    fn location(&self) -> &Path {
        self.connection.address().location()
    }

    fn description(&self) -> &IndexDescription {
        &self.description
    }

    fn nearest_is_exact(&self) -> bool {
        false
    }

    fn item_count(&self, filter: Option<&Filter>) -> Result<usize> {
        if filter.is_some_and(|filter| !filter.conditions.is_empty()) {
            return self.count(filter);
        }
        let mut cached = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        match *cached {
            Some((counted, count)) if counted.elapsed() < COUNT_AGE => Ok(count),
            _ => {
                let count = self.count(None)?;
                *cached = Some((Instant::now(), count));
                Ok(count)
            }
        }
    }

    fn nearest(&self, query: &[f32], count: usize, filter: Option<&Filter>) -> Result<Vec<Neighbor>> {
        let mut found = Vec::new();
        if count <= MAX_INDEX_CANDIDATES {
            found = self.connection.run("find candidates", |client| {
                let mut transaction = client.transaction()?;
                let breadth = (SEARCH_FACTOR * count).clamp(40, MAX_INDEX_CANDIDATES);
                // An iterative scan goes on until enough rows match the filter, or enough were visited.
                transaction.batch_execute(&format!(
                    "SET LOCAL hnsw.ef_search = {breadth}; SET LOCAL hnsw.iterative_scan = relaxed_order"
                ))?;
                let found = select(&mut transaction, &self.table(), query, filter, Scan::Index { count })?;
                transaction.commit()?;
                Ok(found)
            })?;
        }
        // Few items match, or the index was not asked.
        if found.len() < count {
            let scan = if count == usize::MAX { Scan::All } else { Scan::Exact { count } };
            found = self.connection.run("find candidates", |client| {
                let mut transaction = client.transaction()?;
                let found = select(&mut transaction, &self.table(), query, filter, scan)?;
                transaction.commit()?;
                Ok(found)
            })?;
        }
        found.sort_by(|a, b| b.pooled.total_cmp(&a.pooled).then(a.item.cmp(&b.item)));
        found.truncate(count);
        Ok(found)
    }

    fn embeddings(&self, items: &[usize]) -> Result<Vec<Array>> {
        let found =
            self.by_number("embeddings", items, |bytes| self.description.decode_item(self.location(), bytes))?;
        let array = |&item: &usize| Ok(found.get(&item).ok_or(SearchError::NoItem { item })?.clone());
        items.iter().map(array).collect()
    }

    fn names(&self, items: &[usize]) -> Result<Vec<String>> {
        let found = self.by_number("name", items, |bytes| Ok(text(bytes)))?;
        let name = |&item: &usize| Ok(found.get(&item).ok_or(SearchError::NoItem { item })?.clone());
        items.iter().map(name).collect()
    }
}

/// How vectors are found.
#[derive(Clone, Copy)]
enum Scan {
    /// In the order of the HNSW index, or of all vectors if there is none.
    Index { count: usize },
    /// The nearest of all vectors.
    Exact { count: usize },
    /// All vectors.
    All,
}

fn select(
    transaction: &mut postgres::Transaction<'_>,
    table: &str,
    query: &[f32],
    filter: Option<&Filter>,
    scan: Scan,
) -> Result<Vec<Neighbor>, WorkError> {
    let vector = HalfVector::from_f32_slice(query);
    let sql = FilterSql::new(filter, if matches!(scan, Scan::All) { 1 } else { 2 });
    let end = match scan {
        Scan::Index { count } => format!("ORDER BY pooled <#> $1 LIMIT {}", count + margin(count)),
        // An index cannot sort by a sum.
        Scan::Exact { count } => {
            let limit = count.saturating_add(margin(count)).min(i64::MAX as usize);
            format!("ORDER BY (pooled <#> $1) + 0 LIMIT {limit}")
        }
        Scan::All => String::new(),
    };
    let statement = format!("SELECT id, pooled FROM {table} WHERE {} {end}", sql.condition);
    let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::new();
    if !matches!(scan, Scan::All) {
        parameters.push(&vector);
    }
    parameters.extend(sql.parameters());
    let mut found = Vec::new();
    let mut rows = transaction.query_raw(&statement, parameters)?;
    while let Some(row) = rows.next()? {
        // In the precision and order of the sum of an index file, so that both give the same bits.
        let pooled: Vec<f32> = row.get::<_, HalfVector>(1).as_slice().iter().map(|value| value.to_f32()).collect();
        found.push(Neighbor { item: row.get::<_, i64>(0) as usize, pooled: laps_search::dot(&pooled, query) });
    }
    Ok(found)
}

/// Further items that are read, because the server compares with a query in half precision, and so sorts near ties
/// differently.
fn margin(count: usize) -> usize {
    count / 4 + 8
}

fn find(client: &mut Client, name: &str) -> Result<Option<(i32, String)>, WorkError> {
    let statement = "SELECT id, description::text FROM laps_zoo.collections WHERE name = $1";
    Ok(client.query_opt(statement, &[&name])?.map(|row| (row.get(0), row.get(1))))
}

fn parse(connection: &Connection, text: &str) -> Result<IndexDescription, SearchError> {
    let damaged = |reason| SearchError::Damaged { path: connection.address().location.clone(), reason };
    IndexDescription::from_json(text).map_err(damaged)
}

/// The name of an item, which was stored as the bytes of a text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn table(id: i32) -> String {
    format!("laps_zoo.items_{id}")
}

fn items_table(id: i32, width: usize) -> String {
    let table = table(id);
    // A name may be longer than a key of an index can be. Embeddings are not compressible.
    format!(
        "CREATE TABLE {table} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name bytea NOT NULL,
            -- SHA-256 of the image file or caption; unknown for images of an index file.
            content_sha256 bytea,
            -- Size and modification time of the image file.
            file_bytes bigint,
            file_seconds bigint,
            file_nanoseconds integer,
            pooled halfvec({width}) NOT NULL,
            embeddings bytea NOT NULL,
            metadata jsonb NOT NULL DEFAULT '{{}}'
        );
        ALTER TABLE {table} ALTER COLUMN embeddings SET STORAGE EXTERNAL;
        CREATE UNIQUE INDEX ON {table} (sha256(name));
        CREATE INDEX ON {table} (content_sha256);
        CREATE INDEX ON {table} USING gin (metadata jsonb_path_ops);"
    )
}
