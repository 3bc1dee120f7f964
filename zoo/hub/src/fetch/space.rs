//! Free disk space.

use std::{io, path::Path};

use super::FetchError;

/// Bytes left free beyond the size of a download: file systems slow down and other programs fail on a full disk.
const MARGIN: u64 = 64 << 20;

/// Bytes that an unprivileged process can still write to the file system of `folder`.
pub(super) fn free_space(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Checks that `needed` more bytes fit on the disk of the file at `path`.
pub(super) fn check(path: &Path, needed: u64, free: impl Fn(&Path) -> io::Result<u64>) -> Result<(), FetchError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Some file systems do not report free space: go on.
    let Ok(free) = free(folder) else { return Ok(()) };
    if free >= needed.saturating_add(MARGIN) || needed == 0 {
        return Ok(());
    }
    Err(FetchError::Disk { path: path.to_owned(), needed, free: format!("{free} bytes") })
}

#[cfg(test)]
mod tests {
    #[test]
    fn free_space_is_reported() {
        assert!(super::free_space(tempfile::tempdir().unwrap().path()).unwrap() > 0);
    }
}
