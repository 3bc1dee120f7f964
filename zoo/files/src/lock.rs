//! Exclusive locks between processes.

use std::{
    fs::TryLockError,
    io::{self, Write},
    path::Path,
    process,
};

use fs_err::File;

use crate::{Error, IoError, Result, temporary::TemporaryPath, with_suffix};

/// An exclusive lock between processes. The operating system releases it when the process ends, even after a crash. The lock
/// file holds the id of the process.
#[derive(Debug)]
pub struct FileLock {
    // Removed before it is unlocked, so that no other process can hold a lock on the removed file.
    _path: TemporaryPath,
    _file: File,
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
        let mut waiting = Some(waiting);
        Self::lock(path, |file, _| {
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            file.file().lock().map_err(|source| Error::Io(IoError::new("lock", path, source)))
        })
        .map_err(io::Error::from)
    }

    /// Acquires the lock of the output `path`, or fails if another process holds it.
    ///
    /// # Errors
    /// [`Error::Held`], which names the process; [`Error::Io`] if the lock file cannot be written.
    pub fn try_acquire(path: &Path) -> Result<Self> {
        Self::lock(path, |_, lock_path| {
            let pid = fs_err::read_to_string(lock_path).ok().and_then(|text| text.trim().parse().ok());
            Err(Error::Held { path: path.to_owned(), pid })
        })
    }

    /// `held` is called if another process holds the lock; when it returns, this process has it.
    fn lock(path: &Path, mut held: impl FnMut(&File, &Path) -> Result<()>) -> Result<Self> {
        let lock_path = with_suffix(path, ".lock");
        let failed = |source| Error::Io(IoError::new("lock", path, source));
        loop {
            let mut options = fs_err::OpenOptions::new();
            let mut file = options.create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
            match file.file().try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => held(&file, &lock_path)?,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // The previous holder may have removed the file after it was opened here. Other processes then lock a new file.
            if is_same(&file, &lock_path).map_err(failed)? {
                let lock_path = TemporaryPath::adopt(lock_path);
                // The id is for messages only: the lock holds without it.
                let _ = file.file().set_len(0).and_then(|()| writeln!(file, "{}", process::id()));
                return Ok(Self { _path: lock_path, _file: file });
            }
        }
    }
}

/// Whether `path` still names `file`.
#[cfg(unix)]
pub(crate) fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    match fs_err::metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
pub(crate) fn is_same(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::FileLock;
    use crate::Error;

    #[test]
    fn second_lock_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photos.index");
        let lock = FileLock::try_acquire(&path).unwrap();
        // A lock belongs to the open file, so this process is refused like another one.
        let error = FileLock::try_acquire(&path).unwrap_err();
        assert!(matches!(&error, Error::Held { pid: Some(pid), .. } if *pid == std::process::id()), "{error}");
        drop(lock);
        drop(FileLock::try_acquire(&path).unwrap());
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }
}
