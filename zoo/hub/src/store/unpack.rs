//! Unpacks image archives: regular files only, below one folder, resumable.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use fs_err::File;
use laps_files::{OutputFile, safe_relative_path};
use zip::{ZipArchive, read::ZipFile};

use super::FileStoreError;

/// Maximum number of files in an archive; the largest of COCO has 82,783.
const MAX_FILES: usize = 500_000;

/// Maximum size of a file in an archive in bytes; photos have about 200 kB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Maximum ratio of unpacked to packed size. Photos barely compress; a zip bomb has a ratio of a thousand and more.
const MAX_RATIO: u64 = 4;

/// Unpacked size in bytes below which the ratio is not checked.
const MIN_CHECKED_BYTES: u64 = 64 << 20;

/// The result of `unpack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnpackSummary {
    /// Number of files in the archive.
    pub files: usize,
    /// Number of files that existed already with the right size.
    pub existing: usize,
    /// Unpacked size of all files in bytes.
    pub bytes: u64,
}

/// A file to unpack.
struct PlannedFile {
    index: usize,
    path: PathBuf,
    bytes: u64,
}

/// Unpacks the zip archive at `path` below `folder`. Names, types, sizes and overlaps of the whole archive are checked
/// before the first byte is written. A file is renamed to its target when it is complete and its checksum is right, so
/// that an interrupted call is resumed by the next one. Files are not synced. `advance` receives byte counts.
///
/// # Errors
/// [`FileStoreError::Archive`] for a damaged archive, or one with unsafe contents.
pub(crate) fn unpack(
    path: &Path,
    folder: &Path,
    mut advance: impl FnMut(u64),
) -> Result<UnpackSummary, FileStoreError> {
    let read = |source| FileStoreError::io("read", path, source);
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(path, &error))?;
    let planned = plan(path, &mut archive, size)?;
    let mut done = UnpackSummary { files: planned.len(), ..UnpackSummary::default() };
    let mut created = BTreeSet::new();
    for PlannedFile { index, path: name, bytes } in planned {
        let target = folder.join(&name);
        done.bytes += bytes;
        if fs_err::metadata(&target).is_ok_and(|found| found.is_file() && found.len() == bytes) {
            done.existing += 1;
            advance(bytes);
            continue;
        }
        if let Some(parent) = target.parent()
            && created.insert(parent.to_owned())
        {
            fs_err::create_dir_all(parent).map_err(|source| FileStoreError::io("create", parent, source))?;
        }
        let mut entry = archive.by_index(index).map_err(|error| damaged(path, &error))?;
        let write = |source| FileStoreError::io("write", &target, source);
        let mut output = OutputFile::create_among_many(&target).map_err(|error| write(error.into()))?;
        copy(path, &mut entry, &mut output, bytes, &mut advance, write)?;
        output.persist_unsynced().map_err(|error| write(error.into()))?;
    }
    Ok(done)
}

fn plan<R: Read + io::Seek>(
    path: &Path,
    archive: &mut ZipArchive<R>,
    size: u64,
) -> Result<Vec<PlannedFile>, FileStoreError> {
    let refuse = |expected: String, found: String| FileStoreError::Archive { path: path.to_owned(), expected, found };
    if archive.len() > MAX_FILES {
        return Err(refuse(format!("at most {MAX_FILES} files"), format!("{} files", archive.len())));
    }
    if archive.has_overlapping_files().map_err(|error| damaged(path, &error))? {
        return Err(refuse("files that do not overlap".to_owned(), "overlapping files, as in a zip bomb".to_owned()));
    }
    let mut planned = Vec::new();
    let mut seen = BTreeSet::new();
    let mut total = 0_u64;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(path, &error))?;
        let name = entry.name().map_err(|error| damaged(path, &error))?.into_owned();
        let of = |what: &str| format!("{what}, `{}`", name.escape_debug());
        let Some(inner) = safe_relative_path(name.strip_suffix('/').unwrap_or(&name)) else {
            return Err(refuse("names that stay inside the folder".to_owned(), of("an unsafe name")));
        };
        if entry.is_symlink() || entry.encrypted() || !(entry.is_file() || entry.is_dir()) {
            return Err(refuse("regular files".to_owned(), of("another type of file")));
        }
        if entry.is_dir() {
            continue;
        }
        let bytes = entry.size();
        total = total.saturating_add(bytes);
        if bytes > MAX_FILE_BYTES {
            return Err(refuse(
                format!("files of at most {MAX_FILE_BYTES} bytes"),
                of(&format!("one of {bytes} bytes")),
            ));
        }
        // Some file systems are case-insensitive.
        if !seen.insert(name.to_lowercase()) {
            return Err(refuse("unique names".to_owned(), of("a duplicate name")));
        }
        planned.push(PlannedFile { index, path: inner, bytes });
    }
    if total > MIN_CHECKED_BYTES.max(size.saturating_mul(MAX_RATIO)) {
        let expected = format!("contents of at most {MAX_RATIO} times the {size} bytes of the archive");
        return Err(refuse(expected, format!("{total} bytes")));
    }
    Ok(planned)
}

/// Unpacks one file. Reading to the end checks its checksum. A compressed file may contain more bytes than it states,
/// so the number of bytes is limited here.
fn copy<R: Read>(
    archive: &Path,
    entry: &mut ZipFile<'_, R>,
    output: &mut OutputFile,
    bytes: u64,
    advance: &mut impl FnMut(u64),
    write_error: impl Fn(io::Error) -> FileStoreError,
) -> Result<(), FileStoreError> {
    let mut limited = entry.take(bytes + 1);
    let mut block = [0; 1 << 16];
    let mut written = 0;
    loop {
        let count = match limited.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(FileStoreError::Archive {
                    path: archive.to_owned(),
                    expected: "a complete archive".to_owned(),
                    found: format!("an unreadable file: {error}"),
                });
            }
        };
        output.write_all(&block[..count]).map_err(&write_error)?;
        written += count as u64;
        advance(count as u64);
    }
    if written != bytes {
        let found = if written > bytes { "more".to_owned() } else { format!("{written}") };
        let expected = format!("{bytes} bytes, as the archive states");
        return Err(FileStoreError::Archive { path: archive.to_owned(), expected, found });
    }
    Ok(())
}

fn damaged(path: &Path, error: &zip::result::ZipError) -> FileStoreError {
    FileStoreError::Archive {
        path: path.to_owned(),
        expected: "a complete zip archive".to_owned(),
        found: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
