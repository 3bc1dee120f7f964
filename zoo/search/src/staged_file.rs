//! An output file whose header is written last, and the headers of the two file formats.
//!
//! The safetensors crate writes a file from tensors that are all in memory. An index can be larger than that, so its values
//! are appended as they are computed and the header is filled in at the end.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use fs_err::{File, OpenOptions};
use serde_json::json;

use crate::{Error, Result};

/// A file that is written to `PATH.part` and renamed to `PATH` when it is complete. If it is dropped before that, the
/// partial file is removed.
#[derive(Debug)]
pub(super) struct StagedFile {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    header_bytes: usize,
    finished: bool,
}

impl StagedFile {
    /// Creates `PATH.part` and reserves `header_bytes` bytes for the header.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written, or if another process is writing it.
    pub(super) fn create(path: &Path, header_bytes: usize) -> Result<Self> {
        let part = laps_files::with_suffix(path, ".part");
        let failed = |source| Error::Io { action: "write", path: part.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&part).map_err(failed)?;
        file.file().try_lock().map_err(|error| failed(error.into()))?;
        let file = BufWriter::new(file);
        let mut staged = Self { path: path.to_owned(), part, file, header_bytes, finished: false };
        staged.file.get_ref().set_len(0).map_err(|source| staged.failed(source))?;
        staged.append(&vec![b' '; header_bytes])?;
        Ok(staged)
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Writes the header, whose length must be exactly the reserved one, and renames the file to its final path.
    pub(super) fn finish(mut self, header: &[u8]) -> Result<()> {
        if header.len() != self.header_bytes {
            let text = format!("the header has {} bytes, {} are reserved", header.len(), self.header_bytes);
            return Err(self.failed(std::io::Error::other(text)));
        }
        let mut close = || {
            self.file.rewind()?;
            self.file.write_all(header)?;
            self.file.flush()?;
            laps_files::persist(&self.part, &self.path)
        };
        let closed = close();
        closed.map_err(|source| self.failed(source))?;
        self.finished = true;
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Io { action: "write", path: self.path.clone(), source }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.finished {
            // The user needs to see the error that ended the work, not this one.
            let _ = fs_err::remove_file(&self.part);
        }
    }
}

/// One tensor of a safetensors header. Tensors are listed in the order of the file.
pub(super) struct TensorHeader {
    pub(super) name: &'static str,
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: usize,
}

/// Builds a safetensors header, padded with spaces to `header_bytes` as the format allows. It is longer if it does not fit.
pub(super) fn safetensors_header(
    tensors: &[TensorHeader],
    metadata: &BTreeMap<&str, String>,
    header_bytes: usize,
) -> Vec<u8> {
    let mut fields = serde_json::Map::new();
    fields.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for TensorHeader { name, dtype, shape, bytes } in tensors {
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
