//! Writing an index, an item at a time.

use std::{collections::BTreeMap, path::Path};

use super::{
    Description, Index, Item, Kind,
    growing::{Growing, Tensor, safetensors_header},
    pool,
};
use crate::{Error, Result};

/// Room for the header: the description, whose paths are at most 4096 bytes long, and four tensors.
const HEADER: usize = 1 << 15;

/// An index that grows, and is there when it is complete. What it holds in memory is the pooled vector and the name of
/// each item.
///
/// The file is safetensors: `embeddings` `(images, tokens, width)` or `(words, width)`, `pooled` `(items, width)`, `lengths`
/// `(items)` of captions in words, and `items`, the bytes of a JSON array.
#[derive(Debug)]
pub struct IndexWriter {
    growing: Growing,
    description: Description,
    rows: usize,
    pooled: Vec<u8>,
    lengths: Vec<u32>,
    items: Vec<Item>,
}

impl IndexWriter {
    /// Begins the index that is to be at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it can not be written, or if another process is writing it.
    pub fn create(path: &Path, description: Description) -> Result<Self> {
        let growing = Growing::create(path, HEADER)?;
        Ok(Self { growing, description, rows: 0, pooled: Vec::new(), lengths: Vec::new(), items: Vec::new() })
    }

    /// Number of items so far.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item yet.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an item with its embeddings `(rows, width)`.
    ///
    /// # Errors
    /// [`SearchError::Overflow`](super::SearchError::Overflow), and [`Error::Operation`] for embeddings of another size or
    /// with values that are not finite.
    pub fn push(&mut self, item: Item, embeddings: &[f32]) -> Result<()> {
        let Description { width, tokens, precision, kind, .. } = self.description;
        let rows = embeddings.len() / width.max(1);
        if rows * width != embeddings.len() || rows == 0 || (kind == Kind::Images && rows != tokens) {
            return Err(laps_model::Error::Operation {
                operation: "index",
                expected: format!("embeddings of `{}` as ({tokens}, {width})", item.name),
                found: format!("{} values", embeddings.len()),
            }
            .into());
        }
        if let Some(value) = embeddings.iter().find(|value| !value.is_finite()) {
            return Err(laps_model::Error::Operation {
                operation: "index",
                expected: format!("finite embeddings of `{}`", item.name),
                found: value.to_string(),
            }
            .into());
        }
        let first = self.description.first_row(kind);
        self.growing.append(&precision.encode(embeddings, &item.name)?)?;
        self.pooled.extend(precision.encode(&pool(embeddings, width, first), &item.name)?);
        self.add(item, rows);
        Ok(())
    }

    /// Adds the item at `place` of another index with the same embeddings, as it is there.
    pub(super) fn copy(&mut self, from: &Index, place: usize) -> Result<()> {
        let (embeddings, pooled) = from.stored(place)?;
        self.growing.append(&embeddings)?;
        self.pooled.extend(pooled);
        self.add(from.items()[place].clone(), from.rows(place).len());
        Ok(())
    }

    fn add(&mut self, item: Item, rows: usize) {
        self.rows += rows;
        self.lengths.push(rows as u32);
        self.items.push(item);
    }

    /// Puts the index in its place.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        let Description { width, tokens, precision, kind, .. } = self.description;
        let json = |error: serde_json::Error| Error::Io {
            action: "write",
            path: self.description.source.clone().into(),
            source: error.into(),
        };
        let count = self.items.len();
        let items = serde_json::to_vec(&self.items).map_err(json)?;
        let description = serde_json::to_string(&self.description).map_err(json)?;
        let dtype = precision.safetensors();
        let shape = match kind {
            Kind::Images => vec![count, tokens, width],
            Kind::Captions => vec![self.rows, width],
        };
        let bytes = self.rows * width * precision.bytes();
        let mut tensors = vec![
            Tensor { name: "embeddings", dtype, shape, bytes },
            Tensor { name: "pooled", dtype, shape: vec![count, width], bytes: self.pooled.len() },
        ];
        self.growing.append(&std::mem::take(&mut self.pooled))?;
        if kind == Kind::Captions {
            tensors.push(Tensor { name: "lengths", dtype: "U32", shape: vec![count], bytes: 4 * count });
            let lengths: Vec<u8> = self.lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
            self.growing.append(&lengths)?;
        }
        tensors.push(Tensor { name: "items", dtype: "U8", shape: vec![items.len()], bytes: items.len() });
        self.growing.append(&items)?;
        let metadata = BTreeMap::from([(super::index::KEY, description)]);
        self.growing.finish(&safetensors_header(&tensors, &metadata, HEADER))
    }
}
