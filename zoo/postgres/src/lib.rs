//! Search in a Postgres database with pgvector, for collections that one file or one machine cannot serve.
//!
//! A [`Collection`] is a [`Store`](laps_search::Store): a search takes its candidates from pgvector and computes their
//! exact similarities in the process, from embeddings that it reads by number.
//!
//! | Task | Item |
//! |---|---|
//! | Address of a collection, without passwords in messages | [`DatabaseAddress`] |
//! | Search | [`Collection::open`] |
//! | Add images or captions | [`Collection::index_images`], [`Collection::index_captions`] |
//! | Copy from and to an index file | [`import_index`], [`export_index`] |
//! | Metadata for filters | [`read_metadata`] |
//!
//! ```
//! use laps_postgres::{Collection, DatabaseAddress};
//!
//! // Nothing listens on this port.
//! let address: DatabaseAddress = "postgres://me:secret@127.0.0.1:1/photos".parse()?;
//! let error = Collection::open(address).err().map(|error| error.to_string()).unwrap_or_default();
//! assert!(error.starts_with("the database `postgres://me@127.0.0.1:1/photos` cannot be reached"));
//! # Ok::<_, laps_postgres::Error>(())
//! ```

mod address;
mod build;
mod collection;
mod connection;
mod error;
mod filter_sql;
mod metadata;
mod schema;
#[cfg(test)]
mod tests;
mod transfer;
mod writer;

pub use address::DatabaseAddress;
pub use build::{LoadSummary, MissingItems};
pub use collection::Collection;
pub use error::{Error, TablesVersion};
pub use metadata::read_metadata;
pub use transfer::{export_index, import_index};
pub use writer::Metadata;
