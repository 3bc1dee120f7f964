//! Writing an index, one item at a time.

use std::{collections::BTreeMap, path::Path};

use laps_files::IoError;

use super::{
    IndexDescription, IndexItem, IndexKind, SearchError, StoredItem,
    staged_file::{StagedFile, TensorHeader, safetensors_header},
};
use crate::{Error, Result};

/// Bytes reserved for the header: the description, whose paths have at most 4096 bytes, and four tensors.
const HEADER_BYTES: usize = 1 << 15;

/// Writes an index. The file appears at its path when it is complete. Memory holds only the pooled vector and the name of
/// each item.
///
/// The file is safetensors: `embeddings` `(images, tokens, dim)` or `(words, dim)`, `pooled` `(items, dim)`, for captions
/// `lengths` `(items)` in words, and `items`, the bytes of a JSON array. If the head pools, there are only `pooled` and
/// `items`.
#[derive(Debug)]
pub struct IndexWriter {
    file: StagedFile,
    description: IndexDescription,
    rows: usize,
    pooled: Vec<u8>,
    lengths: Vec<u32>,
    items: Vec<IndexItem>,
}

impl IndexWriter {
    /// Starts writing the index `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, or if another process is writing it.
    pub fn create(path: &Path, description: IndexDescription) -> Result<Self> {
        let file = StagedFile::create(path, HEADER_BYTES)?;
        Ok(Self { file, description, rows: 0, pooled: Vec::new(), lengths: Vec::new(), items: Vec::new() })
    }

    /// Number of items written so far.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Appends an item with its embeddings `(rows, dim)`.
    ///
    /// # Errors
    /// [`SearchError::Overflow`](super::SearchError::Overflow), and
    /// [`laps_model::Error::Operation`] for embeddings of another size or with values that are not finite.
    pub(crate) fn push(&mut self, item: IndexItem, embeddings: &[f32]) -> Result<()> {
        let stored = self.description.encode_item(&item.name, embeddings)?;
        self.push_stored(item, stored)
    }

    /// Appends an item of another store with the same kind of embeddings.
    ///
    /// # Errors
    /// [`Error::Io`], and [`SearchError::Damaged`] for embeddings of another size.
    pub fn push_stored(&mut self, item: IndexItem, StoredItem { embeddings, pooled }: StoredItem) -> Result<()> {
        let IndexDescription { width, precision, .. } = self.description;
        let Some(rows) = self.description.stored_rows(embeddings.len()).filter(|_| pooled.len() == width) else {
            let reason = format!("`{}` has {} bytes of embeddings", item.name, embeddings.len());
            return Err(SearchError::Damaged { path: self.description.source.clone().into(), reason }.into());
        };
        self.pooled.extend(precision.encode(&pooled, &item.name)?);
        if !self.description.is_pooled() {
            self.file.append(&embeddings)?;
        }
        self.rows += rows;
        self.lengths.push(rows as u32);
        self.items.push(item);
        Ok(())
    }

    /// Writes the remaining tensors and the header, and renames the file to its final path.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        let IndexDescription { width, tokens, precision, kind, .. } = self.description;
        let json = |error: serde_json::Error| Error::Io(IoError::new("write", &self.description.source, error.into()));
        let count = self.items.len();
        let items = serde_json::to_vec(&self.items).map_err(json)?;
        let description = self.description.to_json();
        let dtype = precision.safetensors();
        let shape = match kind {
            IndexKind::Images => vec![count, tokens, width],
            IndexKind::Captions => vec![self.rows, width],
        };
        let is_pooled = self.description.is_pooled();
        let mut tensors = Vec::with_capacity(4);
        if !is_pooled {
            let bytes = self.rows * width * precision.bytes();
            tensors.push(TensorHeader { name: "embeddings", dtype, shape, bytes });
        }
        tensors.push(TensorHeader { name: "pooled", dtype, shape: vec![count, width], bytes: self.pooled.len() });
        self.file.append(&std::mem::take(&mut self.pooled))?;
        if kind == IndexKind::Captions && !is_pooled {
            tensors.push(TensorHeader { name: "lengths", dtype: "U32", shape: vec![count], bytes: 4 * count });
            let lengths: Vec<u8> = self.lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
            self.file.append(&lengths)?;
        }
        tensors.push(TensorHeader { name: "items", dtype: "U8", shape: vec![items.len()], bytes: items.len() });
        self.file.append(&items)?;
        let metadata = BTreeMap::from([(super::index::METADATA_KEY, description)]);
        self.file.finish(&safetensors_header(&tensors, &metadata, HEADER_BYTES))
    }
}
