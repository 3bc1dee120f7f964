//! Temporary files and folders. They are removed when they are dropped, and by [`remove_temporary_files`] when a signal
//! ends the process.

use std::{
    collections::BTreeSet,
    env, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fs_err::{File, OpenOptions};

/// Paths of this process that do not outlive it.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files and folders and the lock files of this process. For a thread that ends the process after a
/// signal: while the returned guard lives, no new ones are created.
pub fn remove_temporary_files() -> impl Drop {
    let live = live();
    for path in live.iter() {
        // What cannot be removed stays; the process ends anyway.
        if std::fs::remove_file(path).is_err() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
    live
}

/// A file that is removed when this is dropped, unless it was renamed before.
#[derive(Debug)]
pub(crate) struct TemporaryPath(PathBuf);

impl TemporaryPath {
    /// Creates the file `path`, which must not exist.
    pub(crate) fn create(path: PathBuf) -> io::Result<(File, Self)> {
        let mut live = live();
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        live.insert(path.clone());
        Ok((file, Self(path)))
    }

    /// Takes over the file `path`, which this process has created.
    pub(crate) fn adopt(path: PathBuf) -> Self {
        live().insert(path.clone());
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        let mut live = live();
        // The user needs to see the error that ended the work, not this one. After a rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
        live.remove(&self.0);
    }
}

/// A folder that is removed with its contents when this is dropped.
///
/// ```
/// let folder = laps_files::TemporaryFolder::create()?;
/// std::fs::write(folder.path().join("profile.json"), "{}")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Creates a folder that only this user can read, in the first of these places that can be written: the folder that the
    /// environment names for temporary files, `/tmp`, `/var/tmp`, and the shared memory `/dev/shm`, which read-only
    /// containers have too.
    ///
    /// # Errors
    /// The error of the first place.
    pub fn create() -> io::Result<Self> {
        first_success(&places(), |place| Self::create_in(place))
    }

    /// Creates a hidden folder in `parent` that only this user can read.
    ///
    /// # Errors
    /// That of the operating system.
    pub fn create_in(parent: &Path) -> io::Result<Self> {
        let mut live = live();
        let path = tempfile::Builder::new().prefix(".laps-zoo-").tempdir_in(parent)?.keep();
        live.insert(path.clone());
        Ok(Self(path))
    }

    /// The folder `path`, which need not exist yet.
    pub fn claim(path: PathBuf) -> Self {
        live().insert(path.clone());
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves what is at the path, for example after the folder was renamed.
    pub fn keep(self) {
        live().remove(&self.0);
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let mut live = live();
        if live.contains(&self.0) {
            // The user needs to see the error that ended the work, not this one.
            let _ = std::fs::remove_dir_all(&self.0);
            live.remove(&self.0);
        }
    }
}

/// A file of `bytes` without a name, in memory where the system has such files (Linux), otherwise in a folder for temporary
/// files. `name` shows up in the list of open files.
///
/// # Errors
/// That of the operating system.
pub fn memory_file(name: &str, bytes: &[u8]) -> io::Result<std::fs::File> {
    let mut file = unnamed(name)?;
    io::Write::write_all(&mut file, bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

#[cfg(target_os = "linux")]
fn unnamed(name: &str) -> io::Result<std::fs::File> {
    match rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC) {
        Ok(descriptor) => Ok(descriptor.into()),
        // A sandbox may forbid it.
        Err(_) => first_success(&places(), tempfile::tempfile_in),
    }
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &str) -> io::Result<std::fs::File> {
    first_success(&places(), tempfile::tempfile_in)
}

/// Folders for temporary files, in the order in which they are tried.
pub(crate) fn places() -> Vec<PathBuf> {
    let mut places = vec![env::temp_dir()];
    for place in ["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

fn first_success<'a, T>(places: &'a [PathBuf], attempt: impl Fn(&'a PathBuf) -> io::Result<T>) -> io::Result<T> {
    let mut first = None;
    for place in places {
        match attempt(place) {
            Ok(value) => return Ok(value),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{TemporaryFolder, first_success, memory_file};

    #[test]
    fn first_place_that_works_is_used() {
        let root = tempfile::tempdir().unwrap();
        let [absent, present] = ["absent", "present"].map(|name| root.path().join(name));
        fs_err::create_dir(&present).unwrap();
        let create = |places: &[_]| first_success(places, |place| TemporaryFolder::create_in(place));
        let folder = create(&[absent.clone(), present.clone()]).unwrap();
        assert_eq!(folder.path().parent(), Some(&*present));
        fs_err::write(folder.path().join("file"), "x").unwrap();
        drop(folder);
        assert_eq!(fs_err::read_dir(&present).unwrap().count(), 0);
        let error = create(std::slice::from_ref(&absent)).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }

    #[test]
    fn kept_folder_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let folder = TemporaryFolder::claim(path.clone());
        fs_err::create_dir(&path).unwrap();
        folder.keep();
        assert!(path.exists());
    }

    #[test]
    fn memory_file_holds_the_bytes() {
        let mut text = String::new();
        memory_file("weights", b"in memory").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "in memory");
    }
}
