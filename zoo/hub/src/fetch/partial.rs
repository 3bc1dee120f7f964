//! Partial downloads: the bytes received so far, and a metadata file that says what they are part of.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use fs_err::File;
use serde::{Deserialize, Serialize};

use super::FetchError;
use laps_files::{DigestWriter, ExpectedDigest, remove_abandoned_files, replace, with_suffix};

/// Bytes at the end of a partial file that are requested again and compared when a download resumes. The comparison
/// detects a changed source and a disk that lost power.
const OVERLAP: u64 = 1 << 16;

/// Maximum size of a metadata file in bytes.
const MAX_METADATA_BYTES: u64 = 1 << 16;

/// Metadata of the complete file of a partial file, stored as `<file>.part.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartialMetadata {
    /// Identity of the source.
    pub(super) source: String,
    /// Strong `ETag` or `Last-Modified`.
    pub(super) validator: Option<String>,
    /// Size of the whole file.
    pub(super) total: Option<u64>,
    /// Commit that the requested branch pointed to.
    pub(super) revision: Option<String>,
    /// Size and hashes stated by the service.
    pub(super) stated: ExpectedDigest,
    /// URL of the source for the pin.
    pub(super) url: String,
}

/// A partial file. The caller holds the lock of the target file.
pub(super) struct PartialDownload {
    path: PathBuf,
    metadata_path: PathBuf,
    file: File,
    pub(super) metadata: Option<PartialMetadata>,
    /// Hashes of all bytes received.
    digests: DigestWriter,
}

impl PartialDownload {
    /// Opens or creates the partial file of `target`, and reads and hashes its bytes. A file without valid metadata is
    /// truncated.
    pub(super) fn open(target: &Path, expected: &ExpectedDigest) -> Result<Self, FetchError> {
        let (path, metadata_path) = (with_suffix(target, ".part"), with_suffix(target, ".part.json"));
        let failed = |source| FetchError::io("write", &path, source);
        remove_abandoned_files(&metadata_path);
        let mut options = fs_err::OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let metadata = read_metadata(&metadata_path);
        if metadata.is_none() {
            file.set_len(0).map_err(failed)?;
        }
        let total = metadata.as_ref().and_then(|metadata| metadata.total);
        let digests = DigestWriter::new(expected, total).read(&mut file).map_err(failed)?;
        Ok(Self { path, metadata_path, file, metadata, digests })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes received.
    pub(super) fn len(&self) -> u64 {
        self.digests.bytes()
    }

    /// Truncates the file and starts over with `metadata`.
    pub(super) fn restart(&mut self, expected: &ExpectedDigest, metadata: PartialMetadata) -> Result<(), FetchError> {
        let failed = |path: &Path, source| FetchError::io("write", path, source);
        // Truncates before the metadata changes, so that bytes are never paired with the metadata of another file.
        self.file.set_len(0).map_err(|source| failed(&self.path, source))?;
        self.file.rewind().map_err(|source| failed(&self.path, source))?;
        self.digests = DigestWriter::new(expected, metadata.total);
        let text = serde_json::to_vec(&metadata).unwrap_or_default();
        replace(&self.metadata_path, &text).map_err(|source| failed(&self.metadata_path, source))?;
        self.metadata = Some(metadata);
        Ok(())
    }

    /// Offset at which a download resumes: slightly before the end, so that the overlap can be compared.
    pub(super) fn resume_offset(&self) -> u64 {
        self.len() - OVERLAP.min(self.len() / 2)
    }

    /// Reads the bytes from `start`, which is not before [`resume_offset`](Self::resume_offset), to the end. Leaves the
    /// file ready for appending.
    pub(super) fn tail(&mut self, start: u64) -> Result<Vec<u8>, FetchError> {
        let length = self.len().saturating_sub(start).min(OVERLAP);
        let mut tail = vec![0; length as usize];
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut tail));
        let back = read.and_then(|()| self.file.seek(SeekFrom::End(0)));
        back.map_err(|source| FetchError::io("read", &self.path, source))?;
        Ok(tail)
    }

    /// Appends `bytes`.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|source| FetchError::io("write", &self.path, source))?;
        self.digests.update(bytes);
        Ok(())
    }

    /// Hashes of the bytes received.
    pub(super) fn digests(&self) -> DigestWriter {
        self.digests.clone()
    }

    /// Reads the first `length` bytes, or fewer.
    pub(super) fn head(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.file.rewind()?;
        Read::by_ref(&mut self.file).take(length).read_to_end(&mut head)?;
        self.file.seek(SeekFrom::End(0))?;
        Ok(head)
    }

    /// The same partial file without bytes and metadata.
    pub(super) fn emptied(mut self, expected: &ExpectedDigest) -> Result<Self, FetchError> {
        self.restart(expected, PartialMetadata::default())?;
        self.metadata = None;
        Ok(self)
    }

    /// Deletes the partial file and its metadata.
    pub(super) fn discard(self) {
        // A file that cannot be deleted is opened and checked again by the next download.
        let _ = fs_err::remove_file(&self.path);
        self.remove_metadata();
    }

    /// Deletes the metadata after the partial file was renamed to its target.
    pub(super) fn remove_metadata(self) {
        let _ = fs_err::remove_file(self.metadata_path);
    }
}

fn read_metadata(path: &Path) -> Option<PartialMetadata> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_METADATA_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
