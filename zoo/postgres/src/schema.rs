//! The tables and their versions.

use postgres::{Client, Transaction, error::SqlState};

use crate::{
    Error,
    connection::Connection,
    error::{TablesVersion, WorkError, cause},
};
use laps_search::Result;

/// The statements that lead from each version of the tables to the next, from version 0 without tables.
///
/// `collections` has a row for each collection, and `items_ID` the items of the collection with that number. A table for
/// each collection gives the vectors of each a fixed dim, which an HNSW index needs.
pub(crate) const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE laps_zoo.collections (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL UNIQUE,
        -- The description that an index file has.
        description jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
"];

/// First key of the advisory locks of this crate. The second one is 0 for the version, and the negative number of a
/// collection for its writers. It is the start of the SHA-256 of `laps_zoo`.
const LOCK: i32 = 0x09f7_6f56;

/// Serialises transactions that change the version of the tables.
fn lock(transaction: &mut Transaction<'_>) -> Result<(), postgres::Error> {
    transaction.execute("SELECT pg_advisory_xact_lock($1, 0)", &[&LOCK]).map(|_| ())
}

/// Announces that the session writes to a collection, until [`end_writing`] or the end of the session.
pub(crate) fn begin_writing(client: &mut Client, collection: i32) -> Result<(), postgres::Error> {
    client.execute("SELECT pg_advisory_lock_shared($1, $2)", &[&LOCK, &-collection]).map(|_| ())
}

/// Ends what [`begin_writing`] began.
pub(crate) fn end_writing(client: &mut Client, collection: i32) -> Result<(), postgres::Error> {
    client.execute("SELECT pg_advisory_unlock_shared($1, $2)", &[&LOCK, &-collection]).map(|_| ())
}

/// Whether no session writes to a collection. Until the end of the transaction, none begins to.
pub(crate) fn lock_writing(transaction: &mut Transaction<'_>, collection: i32) -> Result<bool, postgres::Error> {
    let row = transaction.query_one("SELECT pg_try_advisory_xact_lock($1, $2)", &[&LOCK, &-collection])?;
    Ok(row.get(0))
}

/// Creates the extension and the tables, or updates the tables, if necessary. Clients that do so at the same time wait for
/// each other.
pub(crate) fn migrate(connection: &Connection, migrations: &[&str]) -> Result<()> {
    connection.run("create the tables", |client| {
        let latest = migrations.len() as i32;
        let found = version(client)?;
        if found == latest {
            return check_extension(connection, client);
        }
        check_not_newer(connection, found, latest)?;
        let mut transaction = client.transaction()?;
        lock(&mut transaction)?;
        create_extension(connection, &mut transaction)?;
        transaction.batch_execute(
            "CREATE SCHEMA IF NOT EXISTS laps_zoo;
             CREATE TABLE IF NOT EXISTS laps_zoo.tables_version (version integer NOT NULL)",
        )?;
        // Another client may have been faster.
        let row = transaction.query_opt("SELECT version FROM laps_zoo.tables_version", &[])?;
        let found = row.map_or(0, |row| row.get::<_, i32>(0));
        check_not_newer(connection, found, latest)?;
        for migration in &migrations[found as usize..] {
            transaction.batch_execute(migration)?;
        }
        transaction.execute("DELETE FROM laps_zoo.tables_version", &[])?;
        transaction.execute("INSERT INTO laps_zoo.tables_version VALUES ($1)", &[&latest])?;
        transaction.commit()?;
        check_extension(connection, client)
    })
}

/// Checks that the tables have this program's version.
pub(crate) fn check(connection: &Connection) -> Result<()> {
    let expected = MIGRATIONS.len() as i32;
    connection.run("read the version of its tables", |client| {
        let found = version(client)?;
        check_not_newer(connection, found, expected)?;
        if found < expected {
            let found = if found == 0 { TablesVersion::None } else { TablesVersion::Older(found) };
            let location = connection.address().location.clone();
            return Err(Error::Version { location, expected, found }.into());
        }
        check_extension(connection, client)
    })
}

fn check_not_newer(connection: &Connection, found: i32, expected: i32) -> Result<(), Error> {
    if found <= expected && found >= 0 {
        return Ok(());
    }
    let location = connection.address().location.clone();
    Err(Error::Version { location, expected, found: TablesVersion::Newer(found) })
}

/// The version of the tables, 0 without any.
fn version(client: &mut Client) -> Result<i32, WorkError> {
    let exists = client.query_one("SELECT to_regclass('laps_zoo.tables_version') IS NOT NULL", &[])?;
    if !exists.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = client.query_opt("SELECT version FROM laps_zoo.tables_version", &[])?;
    Ok(row.map_or(0, |row| row.get(0)))
}

fn create_extension(connection: &Connection, transaction: &mut Transaction<'_>) -> Result<(), WorkError> {
    let exists = transaction.query_opt("SELECT 1 FROM pg_extension WHERE extname = 'vector'", &[])?;
    if exists.is_some() {
        return Ok(());
    }
    let missing = |found: String| Error::Extension { location: connection.address().location.clone(), found };
    match transaction.batch_execute("CREATE EXTENSION vector") {
        Ok(()) => Ok(()),
        Err(error)
            if [&SqlState::FEATURE_NOT_SUPPORTED, &SqlState::UNDEFINED_FILE, &SqlState::INSUFFICIENT_PRIVILEGE]
                .map(Some)
                .contains(&error.code()) =>
        {
            Err(missing(cause(&error)).into())
        }
        Err(error) => Err(error.into()),
    }
}

fn check_extension(connection: &Connection, client: &mut Client) -> Result<(), WorkError> {
    let row = client.query_opt("SELECT extversion FROM pg_extension WHERE extname = 'vector'", &[])?;
    let found = match row.map(|row| row.get::<_, String>(0)) {
        None => "none".to_owned(),
        Some(version) => {
            let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            if (numbers.next(), numbers.next()) >= (Some(0), Some(8)) {
                return Ok(());
            }
            version
        }
    };
    Err(Error::Extension { location: connection.address().location.clone(), found }.into())
}
