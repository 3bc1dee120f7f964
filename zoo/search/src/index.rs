//! Reading an index.
//!
//! Rows are read at their offsets rather than through a memory map: if a mapped file shrinks, the system ends the process.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use fs_err::File;
use rayon::prelude::*;
use safetensors::{Dtype, tensor::Metadata};

use super::{
    Filter, IndexDescription, IndexItem, IndexKind, IndexPrecision, Neighbor, SearchError, Store, StoredItem, half_dot,
    searcher::{dot, largest},
};
use crate::{Error, Result};
use laps_files::{IoError, safetensors_header};
use laps_model::array::Array;

/// Key of the description in the metadata of the file.
pub(super) const METADATA_KEY: &str = "laps_zoo.index";

/// Items whose pooled vectors a thread reads at once. Their bytes and values stay in its cache.
const POOLED_CHUNK: usize = 128;

/// Chunks that share the buffers of a job.
const MIN_CHUNKS: usize = 16;

/// An open index. Names are in memory; embeddings are read when they are needed.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    /// One handle for all threads, which read at offsets of their own.
    file: File,
    description: IndexDescription,
    items: Vec<IndexItem>,
    /// First row of each caption, and the end. Empty for items that have the same number of rows each.
    caption_starts: Vec<usize>,
    embeddings_offset: u64,
    pooled_offset: u64,
}

impl Index {
    /// Opens the index at `path` and checks that its tensors are consistent.
    ///
    /// # Errors
    /// [`SearchError::Foreign`] for another kind of file, [`SearchError::Damaged`] for a truncated or inconsistent one.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |source| Error::Io(IoError::new("read", path, source));
        let foreign = |found: String| SearchError::Foreign { path: path.to_owned(), found };
        let damaged = |reason: String| SearchError::Damaged { path: path.to_owned(), reason };
        if path.is_dir() {
            return Err(foreign("a folder".to_owned()).into());
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let file_bytes = file.metadata().map_err(unreadable)?.len();
        // The metadata key identifies truncated files and files of other format versions.
        let (metadata, data_offset) =
            safetensors_header(&mut file, file_bytes).map_err(|reason| match contains_metadata_key(path) {
                true => damaged(reason),
                false => foreign("a file of another kind".to_owned()),
            })?;
        let text = metadata.metadata().as_ref().and_then(|fields| fields.get(METADATA_KEY));
        let text = text.ok_or_else(|| foreign("safetensors without the description of an index".to_owned()))?;
        let description = IndexDescription::from_json(text).map_err(damaged)?;
        let mut read = |name: &str, dtype: Dtype| {
            let (offset, shape) = tensor_location(&metadata, data_offset, name, dtype).map_err(damaged)?;
            let mut bytes = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
            file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(unreadable)?;
            Ok::<_, Error>(bytes)
        };
        let items: Vec<IndexItem> = serde_json::from_slice(&read("items", Dtype::U8)?)
            .map_err(|error| damaged(format!("the list of items is invalid: {error}")))?;
        let mut caption_starts = Vec::new();
        if description.kind == IndexKind::Captions && !description.is_pooled() {
            let bytes = read("lengths", Dtype::U32)?;
            let lengths = bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word) as usize);
            caption_starts.push(0);
            caption_starts.extend(lengths.scan(0usize, |end, length| {
                *end += length;
                Some(*end)
            }));
        }
        let dtype = match description.precision {
            IndexPrecision::Half => Dtype::F16,
            IndexPrecision::Single => Dtype::F32,
        };
        let IndexDescription { tokens, width, .. } = description;
        let expected = match caption_starts.last() {
            Some(&rows) => vec![rows, width],
            None => vec![items.len(), tokens, width],
        };
        let (pooled_offset, pooled_found) =
            tensor_location(&metadata, data_offset, "pooled", dtype).map_err(damaged)?;
        let (embeddings_offset, found) = match description.is_pooled() {
            true => (pooled_offset, pooled_found.iter().copied().take(1).chain([tokens, width]).collect()),
            false => tensor_location(&metadata, data_offset, "embeddings", dtype).map_err(damaged)?,
        };
        let captions_fit = caption_starts.is_empty() || caption_starts.len() == items.len() + 1;
        let none_empty = caption_starts.windows(2).all(|pair| pair[0] < pair[1]);
        if found != expected || pooled_found != [items.len(), width] || !captions_fit || !none_empty || width == 0 {
            return Err(damaged(format!("embeddings of shape {found:?} for {} items", items.len())).into());
        }
        let path = path.to_owned();
        Ok(Self { path, file, description, items, caption_starts, embeddings_offset, pooled_offset })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Description of the index.
    pub fn description(&self) -> &IndexDescription {
        &self.description
    }

    /// Images or captions of the index, in order.
    pub fn items(&self) -> &[IndexItem] {
        &self.items
    }

    /// Rows of the embeddings that belong to an item.
    fn rows(&self, item: usize) -> Range<usize> {
        match self.caption_starts.is_empty() {
            true => item * self.description.tokens..(item + 1) * self.description.tokens,
            false => self.caption_starts[item]..self.caption_starts[item + 1],
        }
    }

    /// Embeddings and pooled vector of an item, as stored.
    ///
    /// # Errors
    /// [`Error::Io`], and [`SearchError::NoItem`].
    pub fn stored(&self, item: usize) -> Result<StoredItem> {
        if item >= self.items.len() {
            return Err(SearchError::NoItem { item }.into());
        }
        let embeddings = self.bytes(self.embeddings_offset, self.rows(item))?;
        let mut pooled = vec![0.0; self.description.width];
        self.description.precision.decode(&self.bytes(self.pooled_offset, item..item + 1)?, &mut pooled);
        Ok(StoredItem { embeddings, pooled })
    }

    fn check_filter(&self, filter: Option<&Filter>) -> Result<(), SearchError> {
        match filter {
            Some(filter) if !filter.conditions.is_empty() => Err(SearchError::NoMetadata { path: self.path.clone() }),
            _ => Ok(()),
        }
    }

    /// Reads rows of the tensor that begins at byte `offset` of the file.
    fn bytes(&self, offset: u64, rows: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; rows.len() * self.description.width * self.description.precision.bytes()];
        self.read(offset, rows.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads rows from `first_row` on into `bytes`.
    fn read(&self, offset: u64, first_row: usize, bytes: &mut [u8]) -> Result<()> {
        let row_bytes = self.description.width * self.description.precision.bytes();
        let read = self.file.file().read_exact_at(bytes, offset + (first_row * row_bytes) as u64);
        read.map_err(|source| Error::Io(IoError::new("read", &self.path, source)))
    }
}

impl Store for Index {
    fn location(&self) -> &Path {
        &self.path
    }

    fn description(&self) -> &IndexDescription {
        &self.description
    }

    fn item_count(&self, filter: Option<&Filter>) -> Result<usize> {
        self.check_filter(filter)?;
        Ok(self.items.len())
    }

    fn nearest(&self, query: &[f32], count: usize, filter: Option<&Filter>) -> Result<Vec<Neighbor>> {
        self.check_filter(filter)?;
        let width = self.description.width;
        let mut cosines = vec![0.0; self.items.len()];
        let precision = self.description.precision;
        let row_bytes = width * precision.bytes();
        // Allocated once a job: the page faults of fresh memory for each chunk take longer than the products.
        let buffers = || (vec![0; POOLED_CHUNK * row_bytes], vec![0.0; POOLED_CHUNK * width]);
        let compare = |buffers: &mut (Vec<u8>, Vec<f32>), (number, cosines): (usize, &mut [f32])| -> Result<()> {
            let bytes = &mut buffers.0[..cosines.len() * row_bytes];
            self.read(self.pooled_offset, number * POOLED_CHUNK, bytes)?;
            if precision == IndexPrecision::Half && half_dot::dots(bytes, query, cosines) {
                return Ok(());
            }
            let values = &mut buffers.1[..cosines.len() * width];
            precision.decode(bytes, values);
            let vectors = values.chunks_exact(width);
            cosines.iter_mut().zip(vectors).for_each(|(cosine, vector)| *cosine = dot(vector, query));
            Ok(())
        };
        let chunks = cosines.par_chunks_mut(POOLED_CHUNK).enumerate().with_min_len(MIN_CHUNKS);
        chunks.try_for_each_init(buffers, compare)?;
        let items = largest(&cosines, count);
        Ok(items.into_iter().map(|item| Neighbor { item, pooled: cosines[item] }).collect())
    }

    fn embeddings(&self, items: &[usize]) -> Result<Vec<Array>> {
        let read = |&item: &usize| {
            if item >= self.items.len() {
                return Err(SearchError::NoItem { item }.into());
            }
            self.description.decode_item(&self.path, &self.bytes(self.embeddings_offset, self.rows(item))?)
        };
        items.par_iter().map(read).collect()
    }

    fn names(&self, items: &[usize]) -> Result<Vec<String>> {
        let name = |&item: &usize| Ok(self.items.get(item).ok_or(SearchError::NoItem { item })?.name.clone());
        items.iter().map(name).collect()
    }
}

/// Byte offset and shape of a tensor.
fn tensor_location(
    metadata: &Metadata,
    data_offset: u64,
    name: &str,
    dtype: Dtype,
) -> Result<(u64, Vec<usize>), String> {
    let info = metadata.info(name).ok_or_else(|| format!("there is no tensor `{name}`"))?;
    if info.dtype != dtype {
        return Err(format!("tensor `{name}` has dtype {:?} instead of {dtype:?}", info.dtype));
    }
    Ok((data_offset + info.data_offsets.0 as u64, info.shape.clone()))
}

/// Whether the first 64 KiB of a file contain the metadata key of an index.
fn contains_metadata_key(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut head));
    read.is_ok() && head.windows(METADATA_KEY.len()).any(|window| window == METADATA_KEY.as_bytes())
}
