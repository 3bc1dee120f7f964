//! A file whose header is known when everything else is written.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use fs_err::{File, OpenOptions};
use serde_json::json;

use crate::{Error, Result};

/// A file that grows beside its place, in `PATH.part`, and takes it when it is complete. Dropped before that it leaves
/// nothing.
#[derive(Debug)]
pub(super) struct Growing {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    room: usize,
    finished: bool,
}

impl Growing {
    /// Begins with `room` bytes for the header.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can not be written, or if another process writes it.
    pub(super) fn create(path: &Path, room: usize) -> Result<Self> {
        let part = laps_files::beside(path, ".part");
        let failed = |source| Error::Io { action: "write", path: part.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&part).map_err(failed)?;
        file.file().try_lock().map_err(|error| failed(error.into()))?;
        let mut growing = Self { path: path.to_owned(), part, file: BufWriter::new(file), room, finished: false };
        growing.file.get_ref().set_len(0).map_err(|source| growing.failed(source))?;
        growing.append(&vec![b' '; room])?;
        Ok(growing)
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Writes the header of exactly the room that was left for it, and puts the file in its place.
    pub(super) fn finish(mut self, header: &[u8]) -> Result<()> {
        if header.len() != self.room {
            let text = format!("a header of {} bytes where there is room for {}", header.len(), self.room);
            return Err(self.failed(std::io::Error::other(text)));
        }
        let mut close = || {
            self.file.rewind()?;
            self.file.write_all(header)?;
            self.file.flush()?;
            laps_files::put(&self.part, &self.path)
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

impl Drop for Growing {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever made it end early is what the user has to see.
            let _ = fs_err::remove_file(&self.part);
        }
    }
}

/// A tensor of a safetensors file, in the order of the file.
pub(super) struct Tensor {
    pub(super) name: &'static str,
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: usize,
}

/// The header of a safetensors file, filled up with spaces as the format allows, of `room` bytes if it fits.
pub(super) fn safetensors_header(tensors: &[Tensor], metadata: &BTreeMap<&str, String>, room: usize) -> Vec<u8> {
    let mut fields = serde_json::Map::new();
    fields.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for Tensor { name, dtype, shape, bytes } in tensors {
        let end = start + bytes;
        fields.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
        start = end;
    }
    let mut text = serde_json::Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().max(room.saturating_sub(8)), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

/// The header of a NumPy file, version 1.0, in C order, filled up with spaces as the format asks for.
pub(super) fn numpy_header(dtype: &str, shape: &[usize], room: usize) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    let length = room.saturating_sub(10);
    text.extend(std::iter::repeat_n(' ', length.saturating_sub(text.len() + 1)));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.into_bytes());
    header
}
