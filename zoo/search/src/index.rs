//! Reading an index.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{
    Filter, IndexDescription, IndexItem, Neighbor, SearchError, Store, StoredItem,
    index_shards::{IndexManifest, shard_path},
    searcher::Nearest,
    segmented_file::{PooledChunk, ScanBuffers, SegmentedFile},
};
use crate::{Error, Result};
use laps_files::IoError;
use laps_model::array::Array;

/// Chunks that share the buffers of a job.
const MIN_CHUNKS: usize = 8;

/// An open index: one file, or a folder of shards that [`ShardedIndex`](super::ShardedIndex) wrote. Names and embeddings are
/// read when they are needed.
///
/// It is the state of the files when they were opened: items that are added or removed later do not affect it.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    description: IndexDescription,
    /// Each with the number of its first item.
    files: Vec<(usize, SegmentedFile)>,
}

impl Index {
    /// Opens the index at `path`. Reads its headers, checks that its tensors are consistent, and reads which items are
    /// removed; what belongs to a single item is checked when it is read.
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
        let file = SegmentedFile::open(path)?;
        Ok(Self { path: path.to_owned(), description: file.description.clone(), files: vec![(0, file)] })
    }

    fn open_shards(path: &Path, manifest: &IndexManifest) -> Result<Self> {
        let mut files: Vec<(usize, SegmentedFile)> = Vec::with_capacity(manifest.shards.len());
        let mut first = 0;
        for (number, inputs_sha256) in manifest.shards.iter().enumerate() {
            let shard = shard_path(path, number);
            let incomplete =
                |found: String| SearchError::Incomplete { path: path.to_owned(), shard: shard.clone(), found };
            let file = match SegmentedFile::open(&shard) {
                Err(Error::Io(IoError { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Err(incomplete("no such file".to_owned()).into());
                }
                opened => opened?,
            };
            if file.description.inputs_sha256.as_ref() != Some(inputs_sha256) {
                return Err(incomplete("a shard of other images".to_owned()).into());
            }
            if let Some((_, before)) = files.first()
                && let Some((field, expected, found)) = before.description.difference(&file.description)
            {
                return Err(incomplete(format!("a shard with `{field}` {found} instead of {expected}")).into());
            }
            let next = first + file.end_number();
            files.push((first, file));
            first = next;
        }
        let none = || SearchError::Damaged { path: path.to_owned(), reason: "it has no shards".to_owned() };
        let (_, shard) = files.first().ok_or_else(none)?;
        let description = IndexDescription { inputs_sha256: None, ..shard.description.clone() };
        Ok(Self { path: path.to_owned(), description, files })
    }

    /// Path of the file, or of the folder of shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Description of the index.
    pub fn description(&self) -> &IndexDescription {
        &self.description
    }

    /// Numbers of the images or captions of the index, ascending. Those of removed items are missing.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        self.files.iter().flat_map(|(first, file)| file.numbers().map(move |number| first + number))
    }

    /// An image or caption of the index, by its number.
    ///
    /// # Errors
    /// [`Error::Io`], [`SearchError::NoItem`], and [`SearchError::Damaged`] for an item that cannot be read.
    pub fn item(&self, number: usize) -> Result<IndexItem> {
        self.in_file(number, SegmentedFile::item)
    }

    /// Embeddings and pooled vector of an item, as stored.
    ///
    /// # Errors
    /// Those of [`item`](Self::item).
    pub fn stored(&self, item: usize) -> Result<StoredItem> {
        self.in_file(item, SegmentedFile::stored)
    }

    /// The result of `read` for the file of an item and the item's number in it.
    fn in_file<T>(&self, item: usize, read: impl FnOnce(&SegmentedFile, usize) -> Result<T>) -> Result<T> {
        let after = self.files.partition_point(|(first, _)| *first <= item);
        let (first, file) = self.files[..after].last().ok_or(SearchError::NoItem { item })?;
        read(file, item - first).map_err(|error| match error {
            Error::Search(SearchError::NoItem { .. }) => SearchError::NoItem { item }.into(),
            error => error,
        })
    }

    /// The file of an index in one file, to which items can be added.
    pub(super) fn single_file(&self) -> Option<&SegmentedFile> {
        match &self.files[..] {
            [(_, file)] if file.path() == self.path => Some(file),
            _ => None,
        }
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
        Ok(self.files.iter().map(|(_, file)| file.len()).sum())
    }

    fn nearest(&self, query: &[f32], count: usize, filter: Option<&Filter>) -> Result<Vec<Neighbor>> {
        self.check_filter(filter)?;
        let chunks = self.files.iter().flat_map(|(first, file)| file.chunks().map(move |chunk| (*first, file, chunk)));
        let chunks: Vec<(usize, &SegmentedFile, PooledChunk<'_>)> = chunks.collect();
        let jobs = chunks.par_iter().with_min_len(MIN_CHUNKS).try_fold(
            || ScanBuffers::new(count),
            |mut buffers, (first, file, chunk)| {
                file.compare(chunk, query, *first, &mut buffers)?;
                Ok::<_, Error>(buffers)
            },
        );
        let found = jobs
            .map(|buffers| Ok::<_, Error>(buffers?.nearest))
            .try_reduce(|| Nearest::new(count), |a, b| Ok(a.merged(b)))?;
        Ok(found.finish())
    }

    fn embeddings(&self, items: &[usize]) -> Result<Vec<Array>> {
        let read = |&item: &usize| {
            self.in_file(item, |file, item| self.description.decode_item(file.path(), &file.embedding_bytes(item)?))
        };
        items.par_iter().map(read).collect()
    }

    fn names(&self, items: &[usize]) -> Result<Vec<String>> {
        items.iter().map(|&item| Ok(self.item(item)?.name)).collect()
    }
}
