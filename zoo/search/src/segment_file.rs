//! A segment that is appended to an index file.
//!
//! The length of its header, which is not 0, is written when everything else is on the disk. Without it the segment is not
//! part of the file. So the file has its old contents until then, also if the process is killed or the machine stops; what
//! such a writer leaves behind, the next one overwrites.

use std::{
    io::{BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
};

use fs_err::{File, OpenOptions};
use laps_files::FileLock;

use super::{SearchError, segment::SEGMENT_ALIGNMENT, segmented_file::SegmentedFile, staged_file::write_error};
use crate::Result;

/// Bytes of the length of a header.
const PREFIX_BYTES: usize = 8;

/// A segment that no other process writes, with a header of fixed size that is written last.
#[derive(Debug)]
pub(super) struct SegmentFile {
    path: PathBuf,
    /// None once it is finished.
    file: Option<BufWriter<File>>,
    /// Where the segment begins.
    start: u64,
    /// Length of the file without it.
    old_length: u64,
    header_bytes: usize,
    _lock: FileLock,
}

impl SegmentFile {
    /// Starts a segment at the end of the file of `index`, and reserves `header_bytes` bytes for the header.
    pub(super) fn create(index: &SegmentedFile, header_bytes: usize) -> Result<Self> {
        let path = index.path().to_owned();
        let failed = |source| write_error(&path, source);
        // A process that replaces the file locks the target of its links, so this one does, too.
        let target = fs_err::canonicalize(&path).map_err(failed)?;
        let lock = FileLock::try_acquire(&target)?;
        let (opened, old_length) = index.file_and_end();
        let file = OpenOptions::new().read(true).write(true).open(&target).map_err(failed)?;
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).map_err(failed);
        let start = old_length.next_multiple_of(SEGMENT_ALIGNMENT);
        let mut prefix = [0; PREFIX_BYTES];
        let has_grown = file.file().read_exact_at(&mut prefix, start).is_ok() && prefix != [0; PREFIX_BYTES];
        if identity(opened)? != identity(&file)? || has_grown {
            return Err(SearchError::Changed { path }.into());
        }
        // Drops the unfinished segment of a killed writer.
        file.set_len(old_length).map_err(failed)?;
        let mut segment =
            Self { path: path.clone(), file: Some(BufWriter::new(file)), start, old_length, header_bytes, _lock: lock };
        if let Some(file) = &mut segment.file {
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
        }
        segment.append(&vec![0; header_bytes])?;
        Ok(segment)
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|source| write_error(&self.path, source))
    }

    /// Writes the header, whose length must be exactly the reserved one, and makes the segment part of the file.
    pub(super) fn finish(mut self, header: &[u8]) -> Result<()> {
        let failed = |source| write_error(&self.path, source);
        if header.len() != self.header_bytes {
            let text = format!("the header has {} bytes, {} are reserved", header.len(), self.header_bytes);
            return Err(failed(std::io::Error::other(text)));
        }
        let Some(output) = &mut self.file else { return Ok(()) };
        output.flush().map_err(failed)?;
        let file = output.get_ref();
        let (prefix, rest) = header.split_at(PREFIX_BYTES);
        file.file().write_all_at(rest, self.start + PREFIX_BYTES as u64).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        file.file().write_all_at(prefix, self.start).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.file = None;
        Ok(())
    }
}

/// Removes a segment that is not finished.
impl Drop for SegmentFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Without what is buffered. The file is valid with the rest of the segment too.
            let (file, _) = file.into_parts();
            let _ = file.set_len(self.old_length);
        }
    }
}
