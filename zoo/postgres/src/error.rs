//! Errors of this crate.

use std::path::PathBuf;

use laps_search::StoreError;
use postgres::error::SqlState;

/// An error about a database. Locations are addresses without passwords.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not valid.
    #[error("the database address `{}` cannot be used\n  expected: {expected}\n  found: {found}", location.display())]
    Address {
        /// The address.
        location: PathBuf,
        /// The valid form.
        expected: String,
        /// The fault.
        found: String,
    },
    /// The server cannot be reached, or the connection was lost.
    #[error(
        "the database `{}` cannot be reached\n  expected: a Postgres server\n  found: {cause}",
        location.display()
    )]
    Unreachable {
        /// The address.
        location: PathBuf,
        /// The error of the client.
        cause: String,
    },
    /// The server does not accept the user, the password or the name of the database.
    #[error(
        "the database `{}` refuses the connection\n  expected: a user, password and database that it accepts\n  found: {cause}",
        location.display()
    )]
    Login {
        /// The address.
        location: PathBuf,
        /// The error of the server.
        cause: String,
    },
    /// The pgvector extension is missing or too old.
    #[error(
        "the database `{}` cannot compare vectors\n  expected: the extension `vector` (pgvector), 0.8 or later\n  found: {found}",
        location.display()
    )]
    Extension {
        /// The address.
        location: PathBuf,
        /// The version, or why it cannot be created.
        found: String,
    },
    /// The tables have another version.
    #[error(
        "the tables of `{}` have another version\n  expected: version {expected}\n  found: {found}",
        location.display()
    )]
    Version {
        /// The address.
        location: PathBuf,
        /// The version of this program.
        expected: i32,
        /// The version of the database; None without tables.
        found: TablesVersion,
    },
    /// The database does not have the collection.
    #[error(
        "the database `{}` has no collection `{name}`\n  expected: {}\n  found: none",
        location.display(),
        if existing.is_empty() { "a collection".to_owned() } else { format!("one of {}", existing.join(", ")) }
    )]
    NoCollection {
        /// The address.
        location: PathBuf,
        /// The name.
        name: String,
        /// The collections that it has.
        existing: Vec<String>,
    },
    /// The collection was created with other settings.
    #[error(
        "the collection `{}` has another `{setting}`\n  expected: {expected}\n  found: {found}",
        location.display()
    )]
    Settings {
        /// The address.
        location: PathBuf,
        /// The name of the setting.
        setting: String,
        /// The given value.
        expected: String,
        /// The value of the collection.
        found: String,
    },
    /// A file of metadata cannot be used.
    #[error(
        "line {line} of `{}` is no metadata\n  expected: a JSON object with the `name` of an item\n  found: {found}",
        path.display()
    )]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The fault.
        found: String,
    },
    /// The server reported another error.
    #[error("the database `{}` failed to {action}\n  caused by: {cause}", location.display())]
    Database {
        /// The address.
        location: PathBuf,
        /// The failed action.
        action: &'static str,
        /// The error of the server.
        cause: String,
    },
}

/// The version of the tables in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablesVersion {
    /// There are no tables.
    None,
    /// A version before the expected one.
    Older(i32),
    /// A version after the expected one.
    Newer(i32),
}

impl std::fmt::Display for TablesVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("no tables"),
            Self::Older(version) | Self::Newer(version) => write!(f, "version {version}"),
        }
    }
}

impl StoreError for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { cause, .. } if cause.contains("TLS") || cause.contains("certificate") => {
                "connections to other machines use TLS: `sslrootcert` names trusted certificates, and `sslmode=disable` \
                 turns TLS off"
            }
            Self::Unreachable { .. } => "check that the server runs, and the host and port of the address",
            Self::Login { .. } => {
                "check the user, password and database of the address; PGPASSWORD is the password if the address has none"
            }
            Self::Extension { .. } => {
                "install pgvector on the server, and run `CREATE EXTENSION vector` in the database as a superuser"
            }
            Self::Version { found: TablesVersion::None, .. } => "create a collection with `laps-zoo index`",
            Self::Version { found: TablesVersion::Older(_), .. } => {
                "`laps-zoo index` with this database updates its tables"
            }
            Self::Version { found: TablesVersion::Newer(_), .. } => "use a newer laps-zoo",
            Self::NoCollection { .. } => {
                "name it in the address as `collection=NAME`, or create it with `laps-zoo index`"
            }
            Self::Settings { .. } => "use the settings of the collection, or another collection",
            Self::Address { .. } | Self::Metadata { .. } | Self::Database { .. } => return None,
        };
        Some(hint.to_owned())
    }

    fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl From<Error> for laps_search::Error {
    fn from(error: Error) -> Self {
        Self::Store(Box::new(error))
    }
}

/// The error of work with a client, before it is known where.
#[derive(Debug)]
pub(crate) enum WorkError {
    Client(postgres::Error),
    Search(laps_search::Error),
}

impl From<postgres::Error> for WorkError {
    fn from(error: postgres::Error) -> Self {
        Self::Client(error)
    }
}

impl From<laps_search::Error> for WorkError {
    fn from(error: laps_search::Error) -> Self {
        Self::Search(error)
    }
}

impl From<Error> for WorkError {
    fn from(error: Error) -> Self {
        Self::Search(error.into())
    }
}

impl From<laps_search::SearchError> for WorkError {
    fn from(error: laps_search::SearchError) -> Self {
        Self::Search(error.into())
    }
}

/// The message of a client's error. It contains neither the address nor values of parameters.
pub(crate) fn cause(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => {
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        }
    }
}

/// The error of a connection that is not made.
pub(crate) fn connect_error(location: PathBuf, error: &postgres::Error) -> Error {
    let cause = cause(error);
    let refused = error.code().is_some_and(|code| {
        [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(code)
    });
    // A server that asks for a password the client does not have.
    if refused || cause.contains("password missing") {
        return Error::Login { location, cause };
    }
    Error::Unreachable { location, cause }
}
