//! The embeddings of an item as a store keeps them.

use crate::{Error, IndexDescription, IndexKind, Result, SearchError, pool::pool};
use laps_model::array::Array;

/// The embeddings of an item in the precision of its store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredItem {
    /// Embeddings `(rows, dim)`, little-endian; the vector of a head that pools.
    pub embeddings: Vec<u8>,
    /// The pooled vector `(dim)`.
    pub pooled: Vec<f32>,
}

impl IndexDescription {
    /// Encodes the embeddings `(rows, dim)` of an item and pools them. `name` is the item's name, for errors.
    ///
    /// # Errors
    /// [`SearchError::Overflow`], and [`laps_model::Error::Operation`] for embeddings of another size or with values that
    /// are not finite.
    pub fn encode_item(&self, name: &str, embeddings: &[f32]) -> Result<StoredItem> {
        let Self { width, tokens, precision, kind, .. } = *self;
        let rows = embeddings.len() / width.max(1);
        if rows * width != embeddings.len() || rows == 0 || (self.has_fixed_rows() && rows != tokens) {
            return Err(laps_model::Error::Operation {
                operation: "index",
                expected: format!("embeddings of `{name}` as ({tokens}, {width})"),
                found: format!("{} values", embeddings.len()),
            }
            .into());
        }
        if let Some(value) = embeddings.iter().find(|value| !value.is_finite()) {
            return Err(laps_model::Error::Operation {
                operation: "index",
                expected: format!("finite embeddings of `{name}`"),
                found: value.to_string(),
            }
            .into());
        }
        let pooled = pool(embeddings, width, self.pooling(kind));
        Ok(StoredItem { embeddings: precision.encode(embeddings, name)?, pooled })
    }

    /// Whether the embeddings of all items have the same number of rows.
    fn has_fixed_rows(&self) -> bool {
        self.kind == IndexKind::Images || self.is_pooled()
    }

    /// Rows of the embeddings that are stored as `bytes`; None if an item cannot have this size.
    pub fn stored_rows(&self, bytes: usize) -> Option<usize> {
        let row_bytes = self.width * self.precision.bytes();
        let rows = bytes.checked_div(row_bytes)?;
        let fits = rows > 0 && rows * row_bytes == bytes && (!self.has_fixed_rows() || rows == self.tokens);
        fits.then_some(rows)
    }

    /// Decodes stored embeddings into `(rows, dim)`.
    ///
    /// # Errors
    /// [`SearchError::Damaged`] for embeddings of a size that an item cannot have.
    pub fn decode_item(&self, location: &std::path::Path, bytes: &[u8]) -> Result<Array> {
        let rows = self.stored_rows(bytes.len()).ok_or_else(|| {
            Error::from(SearchError::Damaged {
                path: location.to_owned(),
                reason: format!("an item has {} bytes of embeddings", bytes.len()),
            })
        })?;
        let mut values = vec![0.0; rows * self.width];
        self.precision.decode(bytes, &mut values);
        Ok(Array::new(&[rows, self.width], values)?)
    }
}
