//! Locks between processes.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
};

use fs_err::File;

/// An exclusive lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Takes the lock that stands for `path`: on a file of that name with `.lock` at its end. Waits for the process that
    /// has it, after a call of `waiting`.
    pub fn acquire(path: &Path, waiting: impl FnOnce()) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
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
            // The holder before may have removed the file between opening and locking: then others lock another one.
            if is_same(&file, &path)? {
                return Ok(Self { file, path });
            }
        }
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
        // Removed while it is held, so that nobody can have locked this very file in between.
        let _ = fs_err::remove_file(&self.path);
        let _ = self.file.file().unlock();
    }
}
