//! The log of a run in JSON lines.

use std::io::{Seek, SeekFrom, Write};

use serde::Serialize;

use super::{RunFiles, RunFolder};
use crate::{Error, Result};

/// `log.jsonl`: one JSON object for each step and each epoch.
pub(super) struct RunLog {
    folder: RunFolder,
    file: fs_err::File,
}

impl RunLog {
    /// Opens the log and truncates it to `length` bytes: a resumed run writes the rest again.
    pub(super) fn open(folder: &RunFolder, length: u64) -> Result<Self> {
        let path = folder.file(RunFiles::LOG);
        let open = || -> std::io::Result<fs_err::File> {
            let mut options = fs_err::OpenOptions::new();
            let mut file = options.create(true).truncate(false).write(true).open(&path)?;
            let end = file.metadata()?.len().min(length);
            file.set_len(end)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|source| Error::Io { action: "write", path: path.clone(), source })?;
        Ok(Self { folder: folder.clone(), file })
    }

    /// Appends a line.
    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let failed = |source| Error::Io { action: "write", path: self.folder.file(RunFiles::LOG), source };
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|source| Error::Io {
            action: "write",
            path: self.folder.file(RunFiles::LOG),
            source,
        })
    }

    /// Length in bytes.
    pub(super) fn length(&mut self) -> Result<u64> {
        let path = self.folder.file(RunFiles::LOG);
        self.file.stream_position().map_err(|source| Error::Io { action: "read", path, source })
    }
}
