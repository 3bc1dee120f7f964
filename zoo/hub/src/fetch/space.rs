//! Room on disks.

use std::{io, path::Path};

use super::FetchError;

/// Bytes that are left free beyond what a download needs: file systems slow down and other programs fail on a full disk.
const MARGIN: u64 = 64 << 20;

/// Bytes that an unprivileged process can still write to the disk of `folder`.
pub fn free_space(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Refuses to begin what can not be ended: `needed` more bytes for the file at `path`.
pub(super) fn check(path: &Path, needed: u64, free: impl Fn(&Path) -> io::Result<u64>) -> Result<(), FetchError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A file system that does not tell is no reason to stop.
    let Ok(free) = free(folder) else { return Ok(()) };
    if free >= needed.saturating_add(MARGIN) || needed == 0 {
        return Ok(());
    }
    Err(FetchError::Disk { path: path.to_owned(), needed, free: format!("{free} bytes") })
}
