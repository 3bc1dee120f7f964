//! A file of an index.

use std::{io::Read, ops::Range, path::Path};

use fs_err::File;
use laps_files::safetensors_header_at;

use super::{
    IndexDescription, IndexItem, IndexPrecision, Neighbor, SearchError, StoredItem, half_dot,
    searcher::{Nearest, dot},
    segment::{IndexFile, SEGMENT_ALIGNMENT, Segment, SegmentHeader, read_error},
};
use crate::Result;

/// Key of the description in the metadata of the file.
pub(super) const METADATA_KEY: &str = "laps_zoo.index";

/// Items whose pooled vectors a thread reads at once. Their bytes and values stay in its cache.
const POOLED_CHUNK: usize = 256;

/// Segments of a file. Each is a header to read when the file is opened.
const MAX_SEGMENTS: usize = 1024;

/// An open file of an index, with its segments. Items are numbered from 0 in the order of the file.
#[derive(Debug)]
pub(super) struct SegmentedFile {
    file: IndexFile,
    pub(super) description: IndexDescription,
    segments: Vec<Segment>,
    /// Numbers of the removed items, ascending.
    removed: Vec<u32>,
    /// End of the last segment in bytes.
    end: u64,
}

impl SegmentedFile {
    /// Opens the index at `path`. Reads its headers, checks that its tensors are consistent, and reads which items are
    /// removed; what belongs to a single item is checked when it is read.
    ///
    /// # Errors
    /// [`SearchError::Foreign`] for another kind of file, [`SearchError::Damaged`] for a truncated or inconsistent one.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let unreadable = |source| read_error(path, source);
        let foreign = |found: String| SearchError::Foreign { path: path.to_owned(), found };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut file = IndexFile { path: path.to_owned(), file };
        // The metadata key identifies truncated files and files of other format versions.
        let header = safetensors_header_at(&mut file.file, 0, length);
        let (metadata, values) = header.map_err(|reason| match contains_metadata_key(path) {
            true => file.damaged(reason),
            false => foreign("a file of another kind".to_owned()).into(),
        })?;
        let text = metadata.metadata().as_ref().and_then(|fields| fields.get(METADATA_KEY));
        let text = text.ok_or_else(|| foreign("safetensors without the description of an index".to_owned()))?;
        let description = IndexDescription::from_json(text).map_err(|reason| file.damaged(reason))?;
        let end = values.end;
        let header = SegmentHeader { file: &file, metadata: &metadata, values, start: 0 };
        let segments = vec![Segment::new(&header, &description, 0)?];
        let mut index = Self { file, description, segments, removed: Vec::new(), end };
        while let Some(start) = index.next_segment(length)? {
            index.read_segment(start, length)?;
        }
        Ok(index)
    }

    /// Where a further segment begins, if there is one: its first 8 bytes are the length of its header, and 0 as long as it
    /// is not complete.
    fn next_segment(&self, length: u64) -> Result<Option<u64>> {
        let start = self.end.next_multiple_of(SEGMENT_ALIGNMENT);
        if length.saturating_sub(start) < 8 {
            return Ok(None);
        }
        let mut prefix = [0; 8];
        self.file.read(start, &mut prefix)?;
        Ok((prefix != [0; 8]).then_some(start))
    }

    fn read_segment(&mut self, start: u64, length: u64) -> Result<()> {
        let Self { file, description, segments, removed, end } = self;
        let header = safetensors_header_at(&mut file.file, start, length);
        let (metadata, values) = header.map_err(|reason| file.damaged(format!("segment at byte {start}: {reason}")))?;
        let damaged = |reason| file.damaged(format!("segment at byte {start}: {reason}"));
        let items: usize = segments.iter().map(|segment| segment.len).sum();
        *end = values.end;
        let header = SegmentHeader { file, metadata: &metadata, values, start };
        let segment = Segment::new(&header, description, items)?;
        removed.extend(header.removed(items)?);
        removed.sort_unstable();
        if removed.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(damaged("it removes an item that was removed before".to_owned()));
        }
        if u32::try_from(items + segment.len).is_err() {
            return Err(damaged(format!("{} items", items + segment.len)));
        }
        segments.push(segment);
        Ok(())
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Numbers of the items, ascending. Those of removed items are missing.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..self.end_number()).filter(|&item| !self.is_removed(item))
    }

    /// Number of the items.
    pub(super) fn len(&self) -> usize {
        self.end_number() - self.removed.len()
    }

    /// An item, by its number.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`SearchError::NoItem`], and [`SearchError::Damaged`] for an item that cannot be read.
    pub(super) fn item(&self, number: usize) -> Result<IndexItem> {
        let (segment, index) = self.locate(number)?;
        segment.item(&self.file, index)
    }

    /// One more than the number of the last item, removed ones too.
    pub(super) fn end_number(&self) -> usize {
        self.segments.last().map_or(0, |segment| segment.first + segment.len)
    }

    /// Whether `removed` more items can be removed and others added by a further segment. If not, the file is to be written
    /// anew: more than half of its items would be removed ones, it has too many segments, or its names have another format.
    pub(super) fn can_grow(&self, removed: usize) -> bool {
        2 * (self.removed.len() + removed) <= self.end_number()
            && self.segments.len() < MAX_SEGMENTS
            && self.description.is_current()
    }

    /// The open file, and the byte where its last segment ends.
    pub(super) fn file_and_end(&self) -> (&File, u64) {
        (&self.file.file, self.end)
    }

    fn is_removed(&self, item: usize) -> bool {
        u32::try_from(item).is_ok_and(|item| self.removed.binary_search(&item).is_ok())
    }

    /// The segment of an item, and the item's index in it.
    pub(super) fn locate(&self, item: usize) -> Result<(&Segment, usize)> {
        let next = self.segments.partition_point(|segment| segment.first <= item);
        let segment = next.checked_sub(1).map(|last| &self.segments[last]);
        let found = segment.filter(|segment| item - segment.first < segment.len && !self.is_removed(item));
        let segment = found.ok_or(SearchError::NoItem { item })?;
        Ok((segment, item - segment.first))
    }

    /// The stored embeddings of an item.
    pub(super) fn embedding_bytes(&self, item: usize) -> Result<Vec<u8>> {
        let (segment, index) = self.locate(item)?;
        self.rows(segment.embeddings, segment.rows(&self.file, index)?)
    }

    /// Embeddings and pooled vector of an item, as stored.
    ///
    /// # Errors
    /// Those of [`item`](Self::item).
    pub(super) fn stored(&self, item: usize) -> Result<StoredItem> {
        let embeddings = self.embedding_bytes(item)?;
        let (segment, index) = self.locate(item)?;
        let mut pooled = vec![0.0; self.description.width];
        self.description.precision.decode(&self.rows(segment.pooled, index..index + 1)?, &mut pooled);
        Ok(StoredItem { embeddings, pooled })
    }

    fn row_bytes(&self) -> usize {
        self.description.width * self.description.precision.bytes()
    }

    /// Reads rows of the tensor that begins at byte `offset` of the file.
    fn rows(&self, offset: u64, rows: Range<usize>) -> Result<Vec<u8>> {
        let row_bytes = self.row_bytes();
        let mut bytes = vec![0; rows.len() * row_bytes];
        self.file.read(offset + (rows.start * row_bytes) as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// Parts of the file that a thread compares at once.
    pub(super) fn chunks(&self) -> impl Iterator<Item = PooledChunk<'_>> {
        self.segments.iter().flat_map(move |segment| {
            let starts = (0..segment.len).step_by(POOLED_CHUNK);
            starts.map(move |start| PooledChunk { segment, range: start..segment.len.min(start + POOLED_CHUNK) })
        })
    }

    /// Compares the pooled vectors of `chunk` with `query` `(dim)`. `first` is added to the numbers of the items.
    pub(super) fn compare(
        &self,
        PooledChunk { segment, range }: &PooledChunk<'_>,
        query: &[f32],
        first: usize,
        buffers: &mut ScanBuffers,
    ) -> Result<()> {
        let IndexDescription { width, precision, .. } = self.description;
        let row_bytes = self.row_bytes();
        let ScanBuffers { bytes, values, cosines, nearest } = buffers;
        bytes.resize(range.len() * row_bytes, 0);
        cosines.resize(range.len(), 0.0);
        self.file.read(segment.pooled + (range.start * row_bytes) as u64, bytes)?;
        if precision != IndexPrecision::Half || !half_dot::dots(bytes, query, cosines) {
            values.resize(range.len() * width, 0.0);
            precision.decode(bytes, values);
            let vectors = values.chunks_exact(width);
            cosines.iter_mut().zip(vectors).for_each(|(cosine, vector)| *cosine = dot(vector, query));
        }
        for (item, &pooled) in (segment.first + range.start..).zip(&*cosines) {
            if nearest.admits(pooled) && !self.is_removed(item) {
                nearest.push(Neighbor { item: first + item, pooled });
            }
        }
        Ok(())
    }
}

/// Items of a segment whose pooled vectors are compared at once.
pub(super) struct PooledChunk<'a> {
    segment: &'a Segment,
    range: Range<usize>,
}

/// Memory of a scan, allocated once a job and never larger than the file: the page faults of fresh memory for each chunk
/// take longer than the products.
pub(super) struct ScanBuffers {
    bytes: Vec<u8>,
    values: Vec<f32>,
    cosines: Vec<f32>,
    pub(super) nearest: Nearest,
}

impl ScanBuffers {
    /// Buffers that keep the nearest `count` items.
    pub(super) fn new(count: usize) -> Self {
        Self { bytes: Vec::new(), values: Vec::new(), cosines: Vec::new(), nearest: Nearest::new(count) }
    }
}

/// Whether the first 64 KiB of a file contain the metadata key of an index.
fn contains_metadata_key(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut head));
    read.is_ok() && head.windows(METADATA_KEY.len()).any(|window| window == METADATA_KEY.as_bytes())
}
