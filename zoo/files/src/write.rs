//! Files that take their name when they are complete.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use fs_err::File;

/// `path` with `ending` after its whole name.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Gives the complete file `part` the name `path`, in a way that survives a loss of power: contents before name.
pub fn put(part: &Path, path: &Path) -> io::Result<()> {
    File::open(part)?.sync_all()?;
    fs_err::rename(part, path)?;
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes `bytes` to `path`, which then holds either its old content or these. The caller keeps others away.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = beside(path, ".part");
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    drop(file);
    put(&part, path)
}
