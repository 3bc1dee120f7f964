//! Writing an index, one item at a time.

use std::{collections::BTreeMap, path::Path};

use laps_files::IoError;

use super::{
    Index, IndexDescription, IndexItem, IndexKind, SearchError, StoredItem,
    segment::{MAX_ITEM_BYTES, SEGMENT_ALIGNMENT},
    segment_file::SegmentFile,
    spool::Spool,
    staged_file::{StagedFile, TensorEntry, safetensors_header},
};
use crate::{Error, Result};

/// Bytes reserved for the header: the description, whose paths have at most 4096 bytes, and six tensors.
const HEADER_BYTES: usize = 1 << 15;

/// Bytes reserved for the header of a further segment: seven tensors.
const SEGMENT_HEADER_BYTES: usize = 2048;

/// Pooled vectors in memory, in bytes. They follow the embeddings in the file, so more of them wait in another file.
const POOLED_IN_MEMORY: usize = 64 << 20;

/// Writes an index. Memory holds only the name of each item that is written, and some of the pooled vectors.
///
/// The file is safetensors: `embeddings` `(images, tokens, dim)` or `(words, dim)`, `pooled` `(items, dim)`, for captions
/// `lengths` `(items)` in words and `row_ends` `(items)`, and `items`, the bytes of a JSON array, with `item_ends` `(items)`,
/// where each element ends in it. If the head pools, there are no `embeddings`, `lengths` and `row_ends`.
///
/// Items that are added to an index form a further segment of the file, with the same tensors and with `removed`, the numbers
/// of earlier items that are removed.
#[derive(Debug)]
pub struct IndexWriter {
    output: IndexTarget,
    description: IndexDescription,
    rows: u64,
    pooled: Spool,
    lengths: Vec<u32>,
    row_ends: Vec<u64>,
    items: Vec<u8>,
    item_ends: Vec<u64>,
}

#[derive(Debug)]
enum IndexTarget {
    /// A new file, which appears at its path when it is complete.
    File(StagedFile),
    /// A segment of a file, which is part of it when it is complete.
    Segment {
        file: SegmentFile,
        /// Numbers of the items to remove, ascending.
        removed: Vec<u32>,
    },
}

impl IndexTarget {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(file) => file.append(bytes),
            Self::Segment { file, .. } => file.append(bytes),
        }
    }
}

impl IndexWriter {
    /// Starts writing the index `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, or if another process is writing it.
    pub fn create(path: &Path, description: IndexDescription) -> Result<Self> {
        let output = IndexTarget::File(StagedFile::create(path, HEADER_BYTES)?);
        Ok(Self::new(output, path, description))
    }

    /// Starts changing `index`, which is in one file: removes the items with the numbers `removed`, and adds what is pushed. The file is
    /// not rewritten, and has its old contents until [`finish`](Self::finish) returns, also if the process is killed.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, or if another process is writing it; [`SearchError::Changed`] if another
    /// process has changed it since it was opened; [`SearchError::NoItem`] for an item that it does not have.
    pub fn append(index: &Index, removed: &[usize]) -> Result<Self> {
        let file = index.single_file().ok_or_else(|| laps_model::Error::Operation {
            operation: "append to an index",
            expected: "an index in one file".to_owned(),
            found: "a folder of shards".to_owned(),
        })?;
        let mut numbers = Vec::with_capacity(removed.len());
        for &item in removed {
            file.locate(item)?;
            numbers.push(u32::try_from(item).map_err(|_| SearchError::NoItem { item })?);
        }
        numbers.sort_unstable();
        numbers.dedup();
        let file = SegmentFile::create(file, SEGMENT_HEADER_BYTES)?;
        Ok(Self::new(IndexTarget::Segment { file, removed: numbers }, index.path(), index.description().clone()))
    }

    fn new(output: IndexTarget, path: &Path, description: IndexDescription) -> Self {
        let (lengths, row_ends, item_ends) = (Vec::new(), Vec::new(), Vec::new());
        let items = b"[".to_vec();
        Self {
            output,
            description,
            rows: 0,
            pooled: Spool::new(path, POOLED_IN_MEMORY),
            lengths,
            row_ends,
            items,
            item_ends,
        }
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
        let json = serde_json::to_vec(&item).map_err(|error| self.json_error(error))?;
        if json.len() as u64 > MAX_ITEM_BYTES {
            return Err(laps_model::Error::Operation {
                operation: "index",
                expected: format!("names and captions of at most {MAX_ITEM_BYTES} bytes"),
                found: format!("{} bytes", json.len()),
            }
            .into());
        }
        self.pooled.push(&precision.encode(&pooled, &item.name)?)?;
        if !self.description.is_pooled() {
            self.output.append(&embeddings)?;
        }
        self.rows += rows as u64;
        self.lengths.push(rows as u32);
        self.row_ends.push(self.rows);
        if !self.item_ends.is_empty() {
            self.items.push(b',');
        }
        self.items.extend(json);
        self.item_ends.push(self.items.len() as u64);
        Ok(())
    }

    fn json_error(&self, error: serde_json::Error) -> Error {
        Error::Io(IoError::new("write", &self.description.source, error.into()))
    }

    /// Writes the remaining tensors and the header. The file is then renamed to its final path, or the segment becomes part
    /// of its file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        let Self { mut output, description, rows, pooled, lengths, row_ends, mut items, item_ends } = self;
        let IndexDescription { width, tokens, precision, kind, .. } = description;
        let (count, dtype, is_pooled) = (item_ends.len(), precision.safetensors(), description.is_pooled());
        // The rows were written, so they fit.
        let rows = rows as usize;
        let shape = match kind {
            IndexKind::Images => vec![count, tokens, width],
            IndexKind::Captions => vec![rows, width],
        };
        let mut tensors = Vec::with_capacity(7);
        if !is_pooled {
            let bytes = rows * width * precision.bytes();
            tensors.push(TensorEntry { name: "embeddings", dtype, shape, bytes });
        }
        tensors.push(TensorEntry { name: "pooled", dtype, shape: vec![count, width], bytes: pooled.len() });
        pooled.finish(|bytes| output.append(bytes))?;
        let mut append = |output: &mut IndexTarget, name, dtype, shape, values: Vec<u8>| {
            tensors.push(TensorEntry { name, dtype, shape, bytes: values.len() });
            output.append(&values)
        };
        if kind == IndexKind::Captions && !is_pooled {
            let lengths = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
            append(&mut output, "lengths", "U32", vec![count], lengths)?;
            append(&mut output, "row_ends", "U64", vec![count], little_endian(&row_ends))?;
        }
        append(&mut output, "item_ends", "U64", vec![count], little_endian(&item_ends))?;
        let (metadata, header_bytes) = match &output {
            IndexTarget::File(_) => {
                (BTreeMap::from([(super::segmented_file::METADATA_KEY, description.to_json())]), HEADER_BYTES)
            }
            IndexTarget::Segment { removed, .. } => {
                let shape = vec![removed.len()];
                let values = removed.iter().flat_map(|number| number.to_le_bytes()).collect();
                append(&mut output, "removed", "U32", shape, values)?;
                (BTreeMap::new(), SEGMENT_HEADER_BYTES)
            }
        };
        items.push(b']');
        let before: usize = tensors.iter().map(|tensor| tensor.bytes).sum();
        // Spaces after the array, up to where a segment can begin.
        items.resize((before + items.len()).next_multiple_of(SEGMENT_ALIGNMENT as usize) - before, b' ');
        tensors.push(TensorEntry { name: "items", dtype: "U8", shape: vec![items.len()], bytes: items.len() });
        output.append(&items)?;
        let header = safetensors_header(&tensors, &metadata, header_bytes);
        match output {
            IndexTarget::File(file) => file.finish(&header),
            IndexTarget::Segment { file, .. } => file.finish(&header),
        }
    }
}

fn little_endian(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
