//! What is here of a file that is not complete: its bytes, and a note of what they are bytes of.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use fs_err::File;
use serde::{Deserialize, Serialize};

use super::FetchError;
use laps_files::{Digests, Expected, beside};

/// Bytes at the end of a part that are asked for again and compared when a download goes on: a source that has changed, or
/// a disk that lost power, shows in them.
pub(super) const OVERLAP: u64 = 1 << 16;

/// Longest note in bytes.
const LONGEST_NOTE: u64 = 1 << 16;

/// What the bytes of a part are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    /// The source, by its identity.
    pub(super) source: String,
    /// The validator of the file.
    pub(super) validator: Option<String>,
    /// Size of the whole file.
    pub(super) total: Option<u64>,
    /// The commit that a branch stood for.
    pub(super) revision: Option<String>,
    /// What the service stated of the file.
    pub(super) stated: Expected,
    /// How a pin names the source.
    pub(super) url: String,
}

/// An incomplete file. Whoever holds the lock of the file it becomes has it for itself.
pub(super) struct Part {
    path: PathBuf,
    note_path: PathBuf,
    file: File,
    pub(super) note: Option<Note>,
    /// Hashes of all bytes that are here.
    digests: Digests,
}

impl Part {
    /// Takes up the part of `target`; its bytes are read and hashed. A part without a note is emptied.
    pub(super) fn open(target: &Path, expected: &Expected) -> Result<Self, FetchError> {
        let (path, note_path) = (beside(target, ".part"), beside(target, ".part.json"));
        let failed = |source| FetchError::io("write", &path, source);
        let mut options = fs_err::OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let note = read_note(&note_path);
        if note.is_none() {
            file.set_len(0).map_err(failed)?;
        }
        let total = note.as_ref().and_then(|note| note.total);
        let digests = Digests::new(expected, total).read(&mut file).map_err(failed)?;
        Ok(Self { path, note_path, file, note, digests })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are here.
    pub(super) fn len(&self) -> u64 {
        self.digests.bytes()
    }

    /// Begins anew with bytes of what `note` says.
    pub(super) fn restart(&mut self, expected: &Expected, note: Note) -> Result<(), FetchError> {
        let failed = |path: &Path, source| FetchError::io("write", path, source);
        // First the bytes go, then the note changes: at no moment bytes stand under a note that is not theirs.
        self.file.set_len(0).map_err(|source| failed(&self.path, source))?;
        self.file.rewind().map_err(|source| failed(&self.path, source))?;
        self.digests = Digests::new(expected, note.total);
        let text = serde_json::to_vec(&note).unwrap_or_default();
        let fresh = beside(&self.note_path, ".new");
        let written = fs_err::write(&fresh, text).and_then(|()| fs_err::rename(&fresh, &self.note_path));
        written.map_err(|source| failed(&self.note_path, source))?;
        self.note = Some(note);
        Ok(())
    }

    /// Where a download of the rest begins: a little before the end, so that the two can be compared.
    pub(super) fn resume_at(&self) -> u64 {
        self.len() - OVERLAP.min(self.len() / 2)
    }

    /// The bytes from `start` on, which is not before [`resume_at`](Self::resume_at); leaves the part ready to be added to.
    pub(super) fn tail(&mut self, start: u64) -> Result<Vec<u8>, FetchError> {
        let length = self.len().saturating_sub(start).min(OVERLAP);
        let mut tail = vec![0; length as usize];
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut tail));
        let back = read.and_then(|()| self.file.seek(SeekFrom::End(0)));
        back.map_err(|source| FetchError::io("read", &self.path, source))?;
        Ok(tail)
    }

    /// Adds bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|source| FetchError::io("write", &self.path, source))?;
        self.digests.update(bytes);
        Ok(())
    }

    /// Hashes of what is here.
    pub(super) fn digests(&self) -> Digests {
        self.digests.clone()
    }

    /// The first bytes, at most `length`.
    pub(super) fn head(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.file.rewind()?;
        Read::by_ref(&mut self.file).take(length).read_to_end(&mut head)?;
        self.file.seek(SeekFrom::End(0))?;
        Ok(head)
    }

    /// The same part without a byte.
    pub(super) fn emptied(mut self, expected: &Expected) -> Result<Self, FetchError> {
        self.restart(expected, Note::default())?;
        self.note = None;
        Ok(self)
    }

    /// Removes what is here.
    pub(super) fn discard(self) {
        // What can not be removed is taken up and judged again.
        let _ = fs_err::remove_file(&self.path);
        self.finished();
    }

    /// Forgets the note of a part that has become the file.
    pub(super) fn finished(self) {
        for path in [beside(&self.note_path, ".new"), self.note_path] {
            let _ = fs_err::remove_file(path);
        }
    }
}

fn read_note(path: &Path) -> Option<Note> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST_NOTE).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
