//! Archives of images: unpacked below one folder, with resume, and nothing else than regular files.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use fs_err::File;
use zip::{ZipArchive, read::ZipFile};

use super::StoreError;
use laps_files::{beside, inside};

/// Most files in an archive; COCO's largest has 82,783.
const MOST_FILES: usize = 500_000;

/// Largest file in an archive in bytes; photos have some 200 kB.
const LARGEST_FILE: u64 = 256 << 20;

/// How many times larger than the archive its contents may be together. Photos are compressed already; a bomb gains a
/// factor of a thousand and more.
const MOST_GROWTH: u64 = 4;

/// Growth is not looked at below this many bytes of contents.
const SMALL: u64 = 64 << 20;

/// What [`unpack`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files of the archive.
    pub files: usize,
    /// Those that were there already, with their size.
    pub kept: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

struct Planned {
    index: usize,
    path: PathBuf,
    bytes: u64,
}

/// Unpacks the zip archive at `path` below `folder`. Names, kinds, sizes and overlaps are judged for the whole archive
/// before the first byte is written; a file takes its name when it is complete and its checksum is right, so that unpacking
/// goes on where it was broken off. `advance` hears of bytes.
///
/// # Errors
/// [`StoreError::Archive`] for an archive that is damaged, or holds what no archive of images holds.
pub fn unpack(path: &Path, folder: &Path, mut advance: impl FnMut(u64)) -> Result<Unpacked, StoreError> {
    let read = |source| StoreError::io("read", path, source);
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(path, &error))?;
    let planned = plan(path, &mut archive, size)?;
    let mut done = Unpacked { files: planned.len(), ..Unpacked::default() };
    let mut made = BTreeSet::new();
    for Planned { index, path: name, bytes } in planned {
        let target = folder.join(&name);
        done.bytes += bytes;
        if fs_err::metadata(&target).is_ok_and(|found| found.is_file() && found.len() == bytes) {
            done.kept += 1;
            advance(bytes);
            continue;
        }
        if let Some(parent) = target.parent()
            && made.insert(parent.to_owned())
        {
            fs_err::create_dir_all(parent).map_err(|source| StoreError::io("make", parent, source))?;
        }
        let mut entry = archive.by_index(index).map_err(|error| damaged(path, &error))?;
        let part = beside(&target, ".part");
        copy(path, &mut entry, &part, bytes, &mut advance)?;
        fs_err::rename(&part, &target).map_err(|source| StoreError::io("write", &target, source))?;
    }
    Ok(done)
}

fn plan<R: Read + io::Seek>(path: &Path, archive: &mut ZipArchive<R>, size: u64) -> Result<Vec<Planned>, StoreError> {
    let refuse = |expected: String, found: String| StoreError::Archive { path: path.to_owned(), expected, found };
    if archive.len() > MOST_FILES {
        return Err(refuse(format!("at most {MOST_FILES} files"), format!("{} files", archive.len())));
    }
    if archive.has_overlapping_files().map_err(|error| damaged(path, &error))? {
        return Err(refuse("files beside each other".to_owned(), "files that overlap, as in a bomb".to_owned()));
    }
    let mut planned = Vec::new();
    let mut seen = BTreeSet::new();
    let mut total = 0_u64;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(path, &error))?;
        let name = entry.name().map_err(|error| damaged(path, &error))?.into_owned();
        let of = |what: &str| format!("{what}, `{}`", name.escape_debug());
        let Some(inner) = inside(name.strip_suffix('/').unwrap_or(&name)) else {
            return Err(refuse("names that stay inside the folder".to_owned(), of("a name that does not")));
        };
        if entry.is_symlink() || entry.encrypted() || !(entry.is_file() || entry.is_dir()) {
            return Err(refuse("regular files".to_owned(), of("something else")));
        }
        if entry.is_dir() {
            continue;
        }
        let bytes = entry.size();
        total = total.saturating_add(bytes);
        if bytes > LARGEST_FILE {
            return Err(refuse(format!("files of at most {LARGEST_FILE} bytes"), of(&format!("one of {bytes} bytes"))));
        }
        // Some file systems do not tell capitals apart.
        if !seen.insert(name.to_lowercase()) {
            return Err(refuse("every name once".to_owned(), of("a name twice")));
        }
        planned.push(Planned { index, path: inner, bytes });
    }
    if total > SMALL.max(size.saturating_mul(MOST_GROWTH)) {
        let expected = format!("contents of at most {MOST_GROWTH} times the {size} bytes of the archive");
        return Err(refuse(expected, format!("{total} bytes")));
    }
    Ok(planned)
}

/// Reading to the end compares the checksum; a compressed file may hold more than it says, so the limit is ours.
fn copy<R: Read>(
    archive: &Path,
    entry: &mut ZipFile<'_, R>,
    part: &Path,
    bytes: u64,
    advance: &mut impl FnMut(u64),
) -> Result<(), StoreError> {
    let write = |source| StoreError::io("write", part, source);
    let mut file = File::create(part).map_err(write)?;
    let mut limited = entry.take(bytes + 1);
    let mut block = [0; 1 << 16];
    let mut written = 0;
    loop {
        let count = match limited.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(StoreError::Archive {
                    path: archive.to_owned(),
                    expected: "a whole archive".to_owned(),
                    found: format!("a file that can not be read: {error}"),
                });
            }
        };
        file.write_all(&block[..count]).map_err(write)?;
        written += count as u64;
        advance(count as u64);
    }
    if written != bytes {
        let found = if written > bytes { "more".to_owned() } else { format!("{written}") };
        let expected = format!("{bytes} bytes, as the archive says");
        return Err(StoreError::Archive { path: archive.to_owned(), expected, found });
    }
    Ok(())
}

fn damaged(path: &Path, error: &zip::result::ZipError) -> StoreError {
    StoreError::Archive { path: path.to_owned(), expected: "a whole zip archive".to_owned(), found: error.to_string() }
}
