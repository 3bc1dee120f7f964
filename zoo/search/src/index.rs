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
    index_shards::{IndexManifest, shard_path},
    searcher::{dot, largest},
};
use crate::{Error, Result};
use laps_files::safetensors_header;
use laps_model::array::Array;

/// Key of the description in the metadata of the file.
pub(super) const METADATA_KEY: &str = "laps_zoo.index";

/// Items whose pooled vectors a thread reads at once. Their bytes and values stay in its cache.
const POOLED_CHUNK: usize = 128;

/// Chunks that share the buffers of a job.
const MIN_CHUNKS: usize = 16;

/// An open index: one file, or a folder of shards that [`ShardedIndex`](super::ShardedIndex) wrote. Names are in memory;
/// embeddings are read when they are needed.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    description: IndexDescription,
    /// Those of all files.
    items: Vec<IndexItem>,
    /// Each with the number of its first item.
    files: Vec<(usize, IndexFile)>,
}

impl Index {
    /// Opens the index at `path` and checks that its tensors are consistent.
    ///
    /// # Errors
    /// [`SearchError::Foreign`] for another kind of file or folder, [`SearchError::Damaged`] for a truncated or inconsistent
    /// file, [`SearchError::Incomplete`] for a shard that is missing or of other images.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return match IndexManifest::read(path)? {
                Some(manifest) => Self::open_shards(path, &manifest),
                None => Err(SearchError::Foreign { path: path.to_owned(), found: "a folder".to_owned() }.into()),
            };
        }
        let OpenedFile { file, description, items } = IndexFile::open(path)?;
        Ok(Self { path: path.to_owned(), description, items, files: vec![(0, file)] })
    }

    fn open_shards(path: &Path, manifest: &IndexManifest) -> Result<Self> {
        let mut index: Option<Self> = None;
        for (number, inputs_sha256) in manifest.shards.iter().enumerate() {
            let shard = shard_path(path, number);
            let incomplete =
                |found: String| SearchError::Incomplete { path: path.to_owned(), shard: shard.clone(), found };
            let OpenedFile { file, mut description, items } = match IndexFile::open(&shard) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Err(incomplete("no such file".to_owned()).into());
                }
                opened => opened?,
            };
            if description.inputs_sha256.take().as_ref() != Some(inputs_sha256) {
                return Err(incomplete("a shard of other images".to_owned()).into());
            }
            match &mut index {
                None => {
                    index = Some(Self { path: path.to_owned(), description, items, files: vec![(0, file)] });
                }
                Some(index) => {
                    if let Some((field, expected, found)) = index.description.difference(&description) {
                        return Err(incomplete(format!("a shard with `{field}` {found} instead of {expected}")).into());
                    }
                    index.files.push((index.items.len(), file));
                    index.items.extend(items);
                }
            }
        }
        let none = || SearchError::Damaged { path: path.to_owned(), reason: "it has no shards".to_owned() };
        Ok(index.ok_or_else(none)?)
    }

    /// Path of the file, or of the folder of shards.
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

    /// The file of an item, and the item's number in it.
    fn locate(&self, item: usize) -> Result<(&IndexFile, usize), SearchError> {
        let after = self.files.partition_point(|(first, _)| *first <= item);
        let file = self.files[..after].last().filter(|_| item < self.items.len());
        file.map(|(first, file)| (file, item - first)).ok_or(SearchError::NoItem { item })
    }

    /// Embeddings and pooled vector of an item, as stored.
    ///
    /// # Errors
    /// [`Error::Io`], and [`SearchError::NoItem`].
    pub fn stored(&self, item: usize) -> Result<StoredItem> {
        let (file, item) = self.locate(item)?;
        let embeddings = file.bytes(file.embeddings_offset, file.rows(item))?;
        let mut pooled = vec![0.0; self.description.width];
        self.description.precision.decode(&file.bytes(file.pooled_offset, item..item + 1)?, &mut pooled);
        Ok(StoredItem { embeddings, pooled })
    }

    fn check_filter(&self, filter: Option<&Filter>) -> Result<(), SearchError> {
        match filter {
            Some(filter) if !filter.conditions.is_empty() => Err(SearchError::NoMetadata { path: self.path.clone() }),
            _ => Ok(()),
        }
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
        let mut cosines = vec![0.0; self.items.len()];
        for (number, (first, file)) in self.files.iter().enumerate() {
            let end = self.files.get(number + 1).map_or(self.items.len(), |(next, _)| *next);
            file.compare(query, self.description.precision, &mut cosines[*first..end])?;
        }
        let items = largest(&cosines, count);
        Ok(items.into_iter().map(|item| Neighbor { item, pooled: cosines[item] }).collect())
    }

    fn embeddings(&self, items: &[usize]) -> Result<Vec<Array>> {
        let read = |&item: &usize| {
            let (file, item) = self.locate(item)?;
            self.description.decode_item(&file.path, &file.bytes(file.embeddings_offset, file.rows(item))?)
        };
        items.par_iter().map(read).collect()
    }

    fn names(&self, items: &[usize]) -> Result<Vec<String>> {
        let name = |&item: &usize| Ok(self.items.get(item).ok_or(SearchError::NoItem { item })?.name.clone());
        items.iter().map(name).collect()
    }
}

/// One file of an index.
#[derive(Debug)]
struct IndexFile {
    path: PathBuf,
    /// One handle for all threads, which read at offsets of their own.
    file: File,
    /// Rows of an item; those of a caption are in `caption_starts`.
    tokens: usize,
    /// Bytes of a row.
    row_bytes: usize,
    /// First row of each caption, and the end. Empty for items that have the same number of rows each.
    caption_starts: Vec<usize>,
    embeddings_offset: u64,
    pooled_offset: u64,
}

/// A file of an index with what it says about itself.
struct OpenedFile {
    file: IndexFile,
    description: IndexDescription,
    items: Vec<IndexItem>,
}

impl IndexFile {
    fn open(path: &Path) -> Result<OpenedFile> {
        let unreadable = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let damaged = |reason: String| SearchError::Damaged { path: path.to_owned(), reason };
        let IndexHeader { mut file, metadata, data_offset, description } = IndexHeader::read(path)?;
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
        let (path, row_bytes) = (path.to_owned(), width * description.precision.bytes());
        let file = Self { path, file, tokens, row_bytes, caption_starts, embeddings_offset, pooled_offset };
        Ok(OpenedFile { file, description, items })
    }

    /// Rows of the embeddings that belong to an item.
    fn rows(&self, item: usize) -> Range<usize> {
        match self.caption_starts.is_empty() {
            true => item * self.tokens..(item + 1) * self.tokens,
            false => self.caption_starts[item]..self.caption_starts[item + 1],
        }
    }

    /// Reads rows of the tensor that begins at byte `offset` of the file.
    fn bytes(&self, offset: u64, rows: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; rows.len() * self.row_bytes];
        self.read(offset, rows.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads rows from `first_row` on into `bytes`.
    fn read(&self, offset: u64, first_row: usize, bytes: &mut [u8]) -> Result<()> {
        let read = self.file.file().read_exact_at(bytes, offset + (first_row * self.row_bytes) as u64);
        read.map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })
    }

    /// The dot product of `query` `(dim)` with the pooled vector of each item.
    fn compare(&self, query: &[f32], precision: IndexPrecision, cosines: &mut [f32]) -> Result<()> {
        let width = self.row_bytes / precision.bytes();
        // Allocated once a job: the page faults of fresh memory for each chunk take longer than the products.
        let buffers = || (vec![0; POOLED_CHUNK * self.row_bytes], vec![0.0; POOLED_CHUNK * width]);
        let compare = |buffers: &mut (Vec<u8>, Vec<f32>), (number, cosines): (usize, &mut [f32])| -> Result<()> {
            let bytes = &mut buffers.0[..cosines.len() * self.row_bytes];
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
        chunks.try_for_each_init(buffers, compare)
    }
}

/// The header of a file of an index.
struct IndexHeader {
    file: File,
    metadata: Metadata,
    /// Where the tensors begin.
    data_offset: u64,
    description: IndexDescription,
}

impl IndexHeader {
    fn read(path: &Path) -> Result<Self> {
        let unreadable = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let foreign = |found: &str| SearchError::Foreign { path: path.to_owned(), found: found.to_owned() };
        let damaged = |reason: String| SearchError::Damaged { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(unreadable)?;
        let file_bytes = file.metadata().map_err(unreadable)?.len();
        // The metadata key identifies truncated files and files of other format versions.
        let (metadata, data_offset) =
            safetensors_header(&mut file, file_bytes).map_err(|reason| match contains_metadata_key(path) {
                true => damaged(reason),
                false => foreign("a file of another kind"),
            })?;
        let text = metadata.metadata().as_ref().and_then(|fields| fields.get(METADATA_KEY));
        let text = text.ok_or_else(|| foreign("safetensors without the description of an index"))?;
        let description = IndexDescription::from_json(text).map_err(damaged)?;
        Ok(Self { file, metadata, data_offset, description })
    }
}

/// The description of one file of an index, of which nothing else is read.
pub(super) fn read_description(path: &Path) -> Result<IndexDescription> {
    Ok(IndexHeader::read(path)?.description)
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
