//! The files of a checkpoint.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use fs_err::File;
use laps_files::{DigestWriter, sha256_hex};

use super::stored::SharedFile;

/// A file of a checkpoint. Most checkpoints have one.
#[derive(Clone, Debug)]
pub(super) struct CheckpointFile {
    pub(super) path: PathBuf,
    pub(super) length: u64,
    pub(super) source: FileAccess,
}

/// How the content of a [`CheckpointFile`] is read.
#[derive(Clone, Debug)]
pub(super) enum FileAccess {
    Open(Arc<File>),
    /// Opened for each tensor: an unpacked `.pth` has more files than a process may open.
    Closed,
    /// A small file that was read, by its SHA-256.
    Read {
        sha256: String,
    },
}

impl CheckpointFile {
    /// The open file `file` of `length` bytes.
    pub(super) fn open(path: &Path, file: Arc<File>, length: u64) -> Self {
        Self { path: path.to_owned(), length, source: FileAccess::Open(file) }
    }

    /// A file with the content `bytes`.
    pub(super) fn memory(path: &Path, bytes: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            length: bytes.len() as u64,
            source: FileAccess::Read { sha256: sha256_hex(bytes) },
        }
    }

    /// SHA-256 of the content in hexadecimal.
    pub(super) fn sha256(&self) -> io::Result<String> {
        let file = match &self.source {
            FileAccess::Read { sha256 } => return Ok(sha256.clone()),
            FileAccess::Open(file) => Arc::clone(file),
            FileAccess::Closed => Arc::new(File::open(&self.path)?),
        };
        Ok(DigestWriter::sha256().read(SharedFile::new(file, self.length))?.finish().sha256)
    }
}
