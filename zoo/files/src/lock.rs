//! Exclusive locks between processes.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
};

use fs_err::File;

use crate::with_suffix;

/// An exclusive lock between processes. The operating system releases it when the process ends, even after a crash.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Acquires the lock of `path`, which is held on the file `PATH.lock`. If another process holds it, calls `waiting` once
    /// and then waits.
    ///
    /// ```
    /// use laps_files::FileLock;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("checkpoints");
    /// let lock = FileLock::acquire(&path, || eprintln!("waiting for another process"))?;
    /// assert!(folder.path().join("checkpoints.lock").exists());
    /// drop(lock);
    /// assert!(!folder.path().join("checkpoints.lock").exists());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn acquire(path: &Path, waiting: impl FnOnce()) -> io::Result<Self> {
        let path = with_suffix(path, ".lock");
        let mut waiting = Some(waiting);
        loop {
            let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            match file.file().try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    file.file().lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The previous holder may have removed the file after it was opened here. Other processes then lock a new file.
            if is_same(&file, &path)? {
                return Ok(Self { file, path });
            }
        }
    }
}

/// Opens the file `path` for reading and writing, creates it if it does not exist, and locks it. For files that are written
/// in several sessions: the lock is released when the file is closed, even after a crash.
///
/// # Errors
/// A file that cannot be opened, and one that is locked already.
///
/// ```
/// use laps_files::open_locked;
///
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("matrix.partial");
/// let file = open_locked(&path)?;
/// assert_eq!(open_locked(&path).unwrap_err().to_string(), "another process is writing it");
/// drop(file);
/// assert!(open_locked(&path).is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn open_locked(path: &Path) -> io::Result<File> {
    let file = fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.file().try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is writing it"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    match fs_err::metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_same(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Removed while it is locked, so that no other process can hold a lock on the removed file.
        let _ = fs_err::remove_file(&self.path);
        let _ = self.file.file().unlock();
    }
}
