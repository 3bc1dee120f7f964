//! Files that are either complete or not there.

use std::{io::Write, path::Path};

use crate::{Error, Result};

/// Writes `bytes` to a temporary file beside `path`, which takes its place when it is complete.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let attempt = || -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| Error::Write { path: path.to_owned(), source: source.into() })
}

/// Sees that a file could be written at `path`, before the work whose result it is to hold.
pub fn check_writable(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let attempt = || {
        if path.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        if !folder.is_dir() {
            let text = format!("there is no folder `{}`", folder.display());
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, text));
        }
        tempfile::NamedTempFile::new_in(folder).map(|_| ())
    };
    attempt().map_err(|source: std::io::Error| Error::Write { path: path.to_owned(), source: source.into() })
}
