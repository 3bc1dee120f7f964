//! Reading an index.
//!
//! Rows are read at their offsets rather than through a memory map: a file that shrinks under a map ends the process.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fs_err::File;
use safetensors::{Dtype, tensor::Metadata};

use super::{Description, Item, Kind, Precision, SearchError, description::SCHEMA};
use crate::{Error, Result};
use laps_files::safetensors_header;

/// Key of the description in the metadata of the file.
pub(super) const KEY: &str = "laps_zoo.index";

/// Items whose pooled vectors are read at once.
const BLOCK: usize = 4096;

/// An open index. Names are in memory, embeddings are read when they are asked for.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    /// One handle for all threads: what it reads mostly comes from the system's cache.
    file: Mutex<File>,
    description: Description,
    items: Vec<Item>,
    /// First row of each caption, and the end; empty for images, which have as many rows each.
    starts: Vec<usize>,
    embeddings: u64,
    pooled: u64,
}

impl Index {
    /// Opens the index at `path` and checks that its parts fit together.
    ///
    /// # Errors
    /// [`SearchError::Foreign`] for another kind of file, [`SearchError::Damaged`] for one that is cut off or inconsistent.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let foreign = |found: String| SearchError::Foreign { path: path.to_owned(), found };
        let damaged = |reason: String| SearchError::Damaged { path: path.to_owned(), reason };
        if path.is_dir() {
            return Err(foreign("a folder".to_owned()).into());
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        // Another version may have other tensors, and a file that is cut off is still known by its header.
        let (metadata, begin) = safetensors_header(&mut file, length).map_err(|reason| match begins_as_ours(path) {
            true => damaged(reason),
            false => foreign("a file of another kind".to_owned()),
        })?;
        let text = metadata.metadata().as_ref().and_then(|facts| facts.get(KEY));
        let text = text.ok_or_else(|| foreign("safetensors without the description of an index".to_owned()))?;
        let description = describe(text).map_err(damaged)?;
        let mut read = |name: &str, dtype: Dtype| {
            let (offset, shape) = place(&metadata, begin, name, dtype).map_err(damaged)?;
            let mut bytes = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
            file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(unreadable)?;
            Ok::<_, Error>(bytes)
        };
        let items: Vec<Item> = serde_json::from_slice(&read("items", Dtype::U8)?)
            .map_err(|error| damaged(format!("items that are wrong: {error}")))?;
        let mut starts = Vec::new();
        if description.kind == Kind::Captions {
            let bytes = read("lengths", Dtype::U32)?;
            let lengths = bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word) as usize);
            starts.push(0);
            starts.extend(lengths.scan(0usize, |end, length| {
                *end += length;
                Some(*end)
            }));
        }
        let dtype = match description.precision {
            Precision::Half => Dtype::F16,
            Precision::Single => Dtype::F32,
        };
        let Description { tokens, width, .. } = description;
        let shape = match starts.last() {
            Some(&rows) => vec![rows, width],
            None => vec![items.len(), tokens, width],
        };
        let (embeddings, found) = place(&metadata, begin, "embeddings", dtype).map_err(damaged)?;
        let (pooled, pooled_found) = place(&metadata, begin, "pooled", dtype).map_err(damaged)?;
        let captions_fit = starts.is_empty() || starts.len() == items.len() + 1;
        let none_empty = starts.windows(2).all(|pair| pair[0] < pair[1]);
        if found != shape || pooled_found != [items.len(), width] || !captions_fit || !none_empty || width == 0 {
            return Err(damaged(format!("embeddings of shape {found:?} for {} items", items.len())).into());
        }
        let file = Mutex::new(file);
        Ok(Self { path: path.to_owned(), file, description, items, starts, embeddings, pooled })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What is in it.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Rows of the embeddings that belong to an item.
    pub(super) fn rows(&self, item: usize) -> Range<usize> {
        match self.starts.is_empty() {
            true => item * self.description.tokens..(item + 1) * self.description.tokens,
            false => self.starts[item]..self.starts[item + 1],
        }
    }

    /// The embeddings of an item, `(rows, width)`, as many values as `values` has room for.
    pub(super) fn read(&self, item: usize, values: &mut [f32]) -> Result<()> {
        let bytes = self.bytes(self.embeddings, self.rows(item))?;
        self.description.precision.decode(&bytes, values);
        Ok(())
    }

    /// Embeddings and pooled vector of an item as they are stored.
    pub(super) fn stored(&self, item: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((self.bytes(self.embeddings, self.rows(item))?, self.bytes(self.pooled, item..item + 1)?))
    }

    /// Hands the pooled vectors of all items to `each`, some at a time: the index of the first, and `(items, width)`.
    pub(super) fn pooled(&self, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        let mut values = Vec::new();
        for first in (0..self.items.len()).step_by(BLOCK) {
            let end = (first + BLOCK).min(self.items.len());
            let bytes = self.bytes(self.pooled, first..end)?;
            values.resize((end - first) * self.description.width, 0.0);
            self.description.precision.decode(&bytes, &mut values);
            each(first, &values);
        }
        Ok(())
    }

    /// Rows of `width` values, from the place `start` of the file on.
    fn bytes(&self, start: u64, rows: Range<usize>) -> Result<Vec<u8>> {
        let row = self.description.width * self.description.precision.bytes();
        let mut bytes = vec![0; rows.len() * row];
        let mut read = || -> io::Result<()> {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(start + (rows.start * row) as u64))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?;
        Ok(bytes)
    }
}

fn describe(text: &str) -> Result<Description, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match value.get("schema").and_then(serde_json::Value::as_u64) {
        Some(schema) if schema == u64::from(SCHEMA) => {
            serde_json::from_value(value).map_err(|error| format!("a description that is wrong: {error}"))
        }
        schema => Err(format!("version {SCHEMA} of the file is expected, and version {schema:?} was found")),
    }
}

/// Where a tensor begins, and its shape.
fn place(metadata: &Metadata, begin: u64, name: &str, dtype: Dtype) -> Result<(u64, Vec<usize>), String> {
    let info = metadata.info(name).ok_or_else(|| format!("there is no tensor `{name}`"))?;
    if info.dtype != dtype {
        return Err(format!("tensor `{name}` is {:?} and not {dtype:?}", info.dtype));
    }
    Ok((begin + info.data_offsets.0 as u64, info.shape.clone()))
}

/// Whether the beginning of a file has the key of an index.
fn begins_as_ours(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut head));
    read.is_ok() && head.windows(KEY.len()).any(|window| window == KEY.as_bytes())
}
