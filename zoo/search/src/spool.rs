//! Bytes that are kept until they are written to an output.

use std::{
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use fs_err::File;
use laps_files::{IoError, TemporaryFolder};

use crate::{Error, Result};

/// Size of the blocks in which a file is read again.
const BLOCK: usize = 1 << 20;

/// Bytes in memory up to a limit, and otherwise in a file without a name in the folder of the output.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    limit: usize,
    memory: Vec<u8>,
    file: Option<File>,
    len: usize,
}

impl Spool {
    /// An empty spool next to `output` that keeps at most about `limit` bytes in memory.
    pub(super) fn new(output: &Path, limit: usize) -> Self {
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        Self { folder, limit, memory: Vec::new(), file: None, len: 0 }
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.memory.extend_from_slice(bytes);
        self.len += bytes.len();
        if self.memory.len() <= self.limit {
            return Ok(());
        }
        self.spill().map_err(|source| Error::Io(IoError::new("write", &self.folder, source)))
    }

    fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(nameless_file(&self.folder)?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        Ok(())
    }

    /// Passes all bytes to `write`, in order.
    pub(super) fn finish(self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Self { folder, memory, file, .. } = self;
        if let Some(mut file) = file {
            let failed = |source| Error::Io(IoError::new("read", &folder, source));
            file.rewind().map_err(failed)?;
            let mut block = vec![0; BLOCK];
            loop {
                match file.read(&mut block).map_err(failed)? {
                    0 => break,
                    count => write(&block[..count])?,
                }
            }
        }
        write(&memory)
    }
}

/// A file whose name is removed, so that nothing is left of it when the process ends in any way.
fn nameless_file(folder: &Path) -> std::io::Result<File> {
    let folder = TemporaryFolder::create_in(folder)?;
    fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(folder.path().join("spool"))
}

#[cfg(test)]
mod tests {
    use super::Spool;

    #[test]
    fn bytes_come_back_in_order_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        for limit in [0, 7, 100, 5_000_000] {
            let mut spool = Spool::new(&folder.path().join("output"), limit);
            let mut expected = Vec::new();
            for part in 0..600_u32 {
                let bytes = vec![part as u8; (part as usize * 37) % 5000];
                spool.push(&bytes).unwrap();
                assert!(spool.memory.len() <= limit);
                expected.extend(bytes);
            }
            assert_eq!(spool.len(), expected.len());
            assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
            let mut found = Vec::new();
            spool
                .finish(|bytes| {
                    found.extend_from_slice(bytes);
                    Ok(())
                })
                .unwrap();
            assert!(found == expected, "{limit}");
        }
    }
}
