//! An output file whose header is written last, and the headers of the two file formats.
//!
//! The safetensors crate writes a file from tensors that are all in memory. An index can be larger than that, so its values
//! are appended as they are computed and the header is filled in at the end.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use laps_files::{IoError, OutputFile};
use serde_json::json;

use crate::{Error, Result};

/// An [`OutputFile`] that no other process writes, with a header of fixed size that is written last.
#[derive(Debug)]
pub(super) struct StagedFile {
    path: PathBuf,
    file: BufWriter<OutputFile>,
    header_bytes: usize,
}

impl StagedFile {
    /// Starts the output `path` and reserves `header_bytes` bytes for the header.
    ///
    /// # Errors
    /// [`laps_files::Error::Held`] if another process is writing it, [`laps_files::Error::NotSeekable`] if it is not a
    /// regular file, and [`laps_files::Error::Io`] if it cannot be written.
    pub(super) fn create(path: &Path, header_bytes: usize) -> Result<Self> {
        let file = OutputFile::create_seekable(path)?.exclusive()?;
        let mut staged = Self { path: path.to_owned(), file: BufWriter::new(file), header_bytes };
        staged.append(&vec![b' '; header_bytes])?;
        Ok(staged)
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| write_error(&self.path, source))
    }

    /// Writes the header, whose length must be exactly the reserved one, and completes the output.
    pub(super) fn finish(self, header: &[u8]) -> Result<()> {
        let Self { path, mut file, header_bytes } = self;
        if header.len() != header_bytes {
            let text = format!("the header has {} bytes, {header_bytes} are reserved", header.len());
            return Err(write_error(&path, std::io::Error::other(text)));
        }
        let mut close = || {
            file.rewind()?;
            file.write_all(header)?;
            file.flush()
        };
        close().map_err(|source| write_error(&path, source))?;
        let file = file.into_inner().map_err(|error| write_error(&path, error.into_error()))?;
        Ok(file.persist()?)
    }
}

pub(super) fn write_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io(IoError::new("write", path, source))
}

/// One tensor of a safetensors header. Tensors are listed in the order of the file.
pub(super) struct TensorEntry {
    pub(super) name: &'static str,
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: usize,
}

/// Builds a safetensors header, padded with spaces to `header_bytes` as the format allows. It is longer if it does not fit.
pub(super) fn safetensors_header(
    tensors: &[TensorEntry],
    metadata: &BTreeMap<&str, String>,
    header_bytes: usize,
) -> Vec<u8> {
    let mut fields = serde_json::Map::new();
    fields.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for TensorEntry { name, dtype, shape, bytes } in tensors {
        let end = start + bytes;
        fields.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
        start = end;
    }
    let mut text = serde_json::Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().max(header_bytes.saturating_sub(8)), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

/// Builds the header of a `.npy` file of f32 values in C order, format version 1.0, padded with spaces to `header_bytes`
/// as the format requires.
pub(super) fn numpy_header(shape: &[usize], header_bytes: usize) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    let length = header_bytes.saturating_sub(10);
    text.extend(std::iter::repeat_n(' ', length.saturating_sub(text.len() + 1)));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.into_bytes());
    header
}
