//! The segments of an index file.
//!
//! An index file is one or more safetensors files, one after the other, each at a multiple of 8 bytes. The first has the
//! description. Each of the others adds items, and lists items of those before it that are removed. Opening reads the headers
//! and the lists of removed items alone; names and rows are looked up when they are asked for, and checked then.

use std::{
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use fs_err::File;
use laps_files::IoError;
use safetensors::{Dtype, tensor::Metadata};

use super::{IndexDescription, IndexItem, IndexKind, IndexPrecision, SearchError};
use crate::{Error, Result};

/// Where a segment can begin: at a multiple of this, so that the length of its header is in one sector of the disk.
pub(super) const SEGMENT_ALIGNMENT: u64 = 8;

/// Maximum size of the JSON of an item.
pub(super) const MAX_ITEM_BYTES: u64 = 16 << 20;

/// The file of an open index. It is not mapped: if a mapped file shrinks, the system ends the process.
#[derive(Debug)]
pub(super) struct IndexFile {
    pub(super) path: PathBuf,
    /// One handle for all threads, which read at offsets of their own.
    pub(super) file: File,
}

impl IndexFile {
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.file().read_exact_at(bytes, offset).map_err(|source| read_error(&self.path, source))
    }

    pub(super) fn damaged(&self, reason: String) -> Error {
        SearchError::Damaged { path: self.path.clone(), reason }.into()
    }

    fn tensor(&self, location: &TensorLocation, dtype: Dtype) -> Result<Vec<u8>> {
        let mut bytes = vec![0; location.shape.iter().product::<usize>() * dtype.bitsize() / 8];
        self.read(location.offset, &mut bytes)?;
        Ok(bytes)
    }
}

pub(super) fn read_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io(IoError::new("read", path, source))
}

/// Byte offset and shape of a tensor.
struct TensorLocation {
    offset: u64,
    shape: Vec<usize>,
}

/// The header of a segment.
pub(super) struct SegmentHeader<'a> {
    /// The file.
    pub(super) file: &'a IndexFile,
    /// The tensors.
    pub(super) metadata: &'a Metadata,
    /// Byte range of the values.
    pub(super) values: Range<u64>,
    /// Byte where the segment begins.
    pub(super) start: u64,
}

impl SegmentHeader<'_> {
    fn damaged(&self, reason: String) -> Error {
        self.file.damaged(match self.start {
            0 => reason,
            start => format!("segment at byte {start}: {reason}"),
        })
    }

    fn optional(&self, name: &str, dtype: Dtype) -> Result<Option<TensorLocation>> {
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        if info.dtype != dtype {
            return Err(self.damaged(format!("tensor `{name}` has dtype {:?} instead of {dtype:?}", info.dtype)));
        }
        let offset = self.values.start + info.data_offsets.0 as u64;
        Ok(Some(TensorLocation { offset, shape: info.shape.clone() }))
    }

    fn required(&self, name: &str, dtype: Dtype) -> Result<TensorLocation> {
        self.optional(name, dtype)?.ok_or_else(|| self.damaged(format!("there is no tensor `{name}`")))
    }

    /// Numbers of the items of earlier segments that this one removes, ascending.
    pub(super) fn removed(&self, items_before: usize) -> Result<Vec<u32>> {
        let Some(location) = self.optional("removed", Dtype::U32)? else { return Ok(Vec::new()) };
        let bytes = self.file.tensor(&location, Dtype::U32)?;
        let numbers: Vec<u32> = bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
        let is_ascending = numbers.windows(2).all(|pair| pair[0] < pair[1]);
        match is_ascending && numbers.last().is_none_or(|&last| (last as usize) < items_before) {
            true => Ok(numbers),
            false => Err(self.damaged(format!("it removes others than the {items_before} items before it"))),
        }
    }
}

/// Items that were written together.
#[derive(Debug)]
pub(super) struct Segment {
    /// Number of its first item.
    pub(super) first: usize,
    /// Number of its items.
    pub(super) len: usize,
    rows: ItemRows,
    /// Byte offset of the embeddings.
    pub(super) embeddings: u64,
    /// Byte offset of the pooled vectors.
    pub(super) pooled: u64,
    items: ItemTexts,
}

/// The rows of the embeddings that belong to an item.
#[derive(Debug)]
enum ItemRows {
    /// The same number for each.
    Fixed(usize),
    /// The end of each at this byte offset, as U64, and the number of all rows.
    Stored { ends: u64, rows: usize },
    /// Of a file without the tensor `row_ends`: the first row of each, and the end.
    Loaded(Vec<usize>),
}

/// The JSON of the items.
#[derive(Debug)]
enum ItemTexts {
    /// A JSON array in this byte range of the file, and the byte offset of the end of each element, as U64.
    Stored { text: Range<u64>, ends: u64 },
    /// Of a file without the tensor `item_ends`.
    Loaded(Vec<IndexItem>),
}

impl Segment {
    /// Checks the tensors of a segment against each other. `first` is the number of its first item.
    pub(super) fn new(header: &SegmentHeader<'_>, description: &IndexDescription, first: usize) -> Result<Self> {
        let file = header.file;
        let dtype = match description.precision {
            IndexPrecision::Half => Dtype::F16,
            IndexPrecision::Single => Dtype::F32,
        };
        let IndexDescription { tokens, width, .. } = *description;
        let pooled = header.required("pooled", dtype)?;
        let (len, pooled_width) = match pooled.shape[..] {
            [len, pooled_width] => (len, pooled_width),
            _ => return Err(header.damaged(format!("pooled vectors of shape {:?}", pooled.shape))),
        };
        let texts = header.required("items", Dtype::U8)?;
        let items = match header.optional("item_ends", Dtype::U64)? {
            Some(ends) if ends.shape == [len] => {
                let bytes: usize = texts.shape.iter().product();
                ItemTexts::Stored { text: texts.offset..texts.offset + bytes as u64, ends: ends.offset }
            }
            Some(ends) => return Err(header.damaged(format!("ends of shape {:?} for {len} items", ends.shape))),
            None => {
                let items: Vec<IndexItem> = serde_json::from_slice(&file.tensor(&texts, Dtype::U8)?)
                    .map_err(|error| header.damaged(format!("the list of items is invalid: {error}")))?;
                if items.len() != len {
                    return Err(header.damaged(format!("{} names of {len} items", items.len())));
                }
                ItemTexts::Loaded(items)
            }
        };
        let embeddings = match description.is_pooled() {
            true => TensorLocation { offset: pooled.offset, shape: vec![len, tokens, width] },
            false => header.required("embeddings", dtype)?,
        };
        let rows = match (description.kind, description.is_pooled()) {
            (IndexKind::Images, _) | (_, true) => ItemRows::Fixed(tokens),
            (IndexKind::Captions, false) => caption_rows(header, len, &embeddings.shape)?,
        };
        let expected = match &rows {
            ItemRows::Fixed(tokens) => vec![len, *tokens, width],
            ItemRows::Stored { rows, .. } => vec![*rows, width],
            ItemRows::Loaded(starts) => vec![starts.last().copied().unwrap_or_default(), width],
        };
        let is_one_row = !description.is_pooled() || tokens == 1;
        if embeddings.shape != expected || pooled_width != width || width == 0 || !is_one_row {
            return Err(header.damaged(format!("embeddings of shape {:?} for {len} items", embeddings.shape)));
        }
        Ok(Self { first, len, rows, embeddings: embeddings.offset, pooled: pooled.offset, items })
    }

    /// Rows of the embeddings of item `index` of this segment.
    pub(super) fn rows(&self, file: &IndexFile, index: usize) -> Result<Range<usize>> {
        match &self.rows {
            ItemRows::Fixed(tokens) => Ok(index * tokens..(index + 1) * tokens),
            ItemRows::Loaded(starts) => Ok(starts[index]..starts[index + 1]),
            ItemRows::Stored { ends, rows } => {
                let found = bounds(file, *ends, index)?;
                if found.is_empty() || found.end > *rows as u64 {
                    let item = self.first + index;
                    return Err(file.damaged(format!("item {item} has the rows {found:?} of {rows}")));
                }
                // Both are at most `rows`.
                Ok(found.start as usize..found.end as usize)
            }
        }
    }

    /// Item `index` of this segment.
    pub(super) fn item(&self, file: &IndexFile, index: usize) -> Result<IndexItem> {
        let (text, ends) = match &self.items {
            ItemTexts::Loaded(items) => return Ok(items[index].clone()),
            ItemTexts::Stored { text, ends } => (text, *ends),
        };
        let found = bounds(file, ends, index)?;
        // A bracket or comma precedes each.
        let start = found.start.saturating_add(1);
        let bytes = found.end.saturating_sub(start);
        let offset = text.start.saturating_add(start);
        let invalid =
            |reason: String| file.damaged(format!("item {} at byte {offset} is invalid: {reason}", self.first + index));
        if bytes > MAX_ITEM_BYTES || found.end > text.end - text.start {
            return Err(invalid(format!("{bytes} bytes that end at byte {} of the list of items", found.end)));
        }
        let mut json = vec![0; bytes as usize];
        file.read(offset, &mut json)?;
        serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))
    }
}

fn caption_rows(header: &SegmentHeader<'_>, len: usize, embeddings: &[usize]) -> Result<ItemRows> {
    if let Some(ends) = header.optional("row_ends", Dtype::U64)? {
        let rows = embeddings.first().copied().unwrap_or_default();
        return match ends.shape == [len] {
            true => Ok(ItemRows::Stored { ends: ends.offset, rows }),
            false => Err(header.damaged(format!("ends of rows of shape {:?} for {len} items", ends.shape))),
        };
    }
    let bytes = header.file.tensor(&header.required("lengths", Dtype::U32)?, Dtype::U32)?;
    let lengths = bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word) as usize);
    let mut starts = vec![0];
    starts.extend(lengths.scan(0_usize, |end, length| {
        *end += length;
        Some(*end)
    }));
    match starts.len() == len + 1 && starts.windows(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(ItemRows::Loaded(starts)),
        false => Err(header.damaged(format!("lengths of {} captions for {len} items", starts.len() - 1))),
    }
}

/// The range that ends at value `index` of the U64 values at `offset`, and begins at the value before it.
fn bounds(file: &IndexFile, offset: u64, index: usize) -> Result<Range<u64>> {
    let mut pair = [0; 16];
    match index {
        0 => file.read(offset, &mut pair[8..])?,
        _ => file.read(offset + 8 * (index as u64 - 1), &mut pair)?,
    }
    let words = pair.as_chunks().0;
    Ok(u64::from_le_bytes(words[0])..u64::from_le_bytes(words[1]))
}
