//! The interface between a search and the place where its items are stored.

use std::path::Path;

use crate::{Filter, IndexDescription, Neighbor, Result};
use laps_model::array::Array;

/// Where the embeddings of a search are stored: an [`Index`](crate::Index) file, or a database.
///
/// An item is addressed by its number, which stays the same as long as the item is stored. The numbers of an index file are
/// positions; those of a database have gaps.
pub trait Store: Send + Sync {
    /// Path of the file or address of the database, without a password. Errors name it.
    fn location(&self) -> &Path;

    /// The kind of the items, and the model that computed them.
    fn description(&self) -> &IndexDescription;

    /// Number of items that match `filter`.
    ///
    /// # Errors
    /// A store that cannot be read, or that has no metadata to filter by.
    fn item_count(&self, filter: Option<&Filter>) -> Result<usize>;

    /// The `count` items that match `filter` and whose pooled vectors have the largest dot products with `query` `(dim)`,
    /// descending; ties by number. Fewer if fewer items match. A database may find other near items instead of some of
    /// the nearest, unless `count` is the number of items or more.
    ///
    /// # Errors
    /// A store that cannot be read, or that has no metadata to filter by.
    fn nearest(&self, query: &[f32], count: usize, filter: Option<&Filter>) -> Result<Vec<Neighbor>>;

    /// Whether [`nearest`](Self::nearest) finds the nearest items for every `count`.
    fn nearest_is_exact(&self) -> bool {
        true
    }

    /// The embeddings `(rows, dim)` of each of `items`, in their order.
    ///
    /// # Errors
    /// A store that cannot be read, and an item that it does not have.
    fn embeddings(&self, items: &[usize]) -> Result<Vec<Array>>;

    /// The name of each of `items`, in their order: the image's path in its folder, or the caption.
    ///
    /// # Errors
    /// A store that cannot be read, and an item that it does not have.
    fn names(&self, items: &[usize]) -> Result<Vec<String>>;
}

/// An error of a [`Store`] outside of this crate.
pub trait StoreError: std::error::Error + Send + Sync {
    /// Hint for the user, if there is one.
    fn hint(&self) -> Option<String>;

    /// Whether the same operation can succeed later: the database cannot be reached.
    fn is_temporary(&self) -> bool;
}
