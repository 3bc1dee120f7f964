//! The output folder of a run.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use laps_files::{FileLock, IoError, with_suffix};

use super::{TrainError, config_hash::ConfigHash};
use crate::{Error, Result};

/// A folder with the files of one run. A file is either complete or unchanged.
#[derive(Clone, Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    _lock: Arc<FileLock>,
}

/// The lock of a run is the file `run.lock` in its folder: the folder above may be read-only.
const LOCKED: &str = "run";

/// File names of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunFiles;

impl RunFiles {
    /// Weights of the epoch with the best rSum.
    pub const BEST: &str = "best.safetensors";
    /// Weights of the last epoch.
    pub const LAST: &str = "last.safetensors";
    /// Everything needed to resume the run.
    pub const STATE: &str = "state.safetensors";
    /// The effective entry.
    pub const ENTRY: &str = "entry.yaml";
    /// Hash of the effective configuration.
    pub const HASH: &str = "config.sha256";
    /// Log, one JSON object a line.
    pub const LOG: &str = "log.jsonl";
}

impl RunFolder {
    /// Opens the folder for a run of the configuration `hash` with the effective entry `entry`. With `resume` the folder must
    /// hold the state of a run with that configuration, or with fewer epochs; without `resume` it must not hold a run.
    ///
    /// # Errors
    /// A folder that holds something else, and [`laps_files::Error::Held`] for one that another process trains in.
    pub(super) fn open(path: &Path, entry: &str, hash: &ConfigHash, resume: bool) -> Result<Self> {
        let failed = |action, source| Error::Io(IoError::new(action, path, source));
        if !path.is_dir() {
            if resume {
                return Err(TrainError::NoState { folder: path.to_owned() }.into());
            }
            fs_err::create_dir_all(path).map_err(|source| failed("create", source))?;
        }
        let lock = FileLock::try_acquire(&path.join(LOCKED)).map_err(|error| match error {
            laps_files::Error::Held { pid, .. } => laps_files::Error::Held { path: path.to_owned(), pid },
            error => error,
        })?;
        let folder = Self { path: path.to_owned(), _lock: lock.into() };
        let saved_hash = match fs_err::read_to_string(folder.file(RunFiles::HASH)) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Io(IoError::new("read", folder.file(RunFiles::HASH), source))),
        };
        match saved_hash {
            Some(found) if found != hash.value() && !(resume && hash.saved_epochs(&found).is_some()) => {
                let (folder, expected) = (path.to_owned(), hash.value().to_owned());
                return Err(TrainError::OtherRun { folder, expected, found }.into());
            }
            Some(_) if !resume && folder.file(RunFiles::STATE).exists() => {
                return Err(TrainError::Occupied { folder: path.to_owned() }.into());
            }
            Some(_) => {}
            None => {
                if resume {
                    return Err(TrainError::NoState { folder: path.to_owned() }.into());
                }
                let entries = fs_err::read_dir(path).map_err(|source| failed("read", source))?;
                // A run that was killed at its first file leaves a temporary one.
                let mut names = entries.flatten().map(|entry| entry.file_name());
                let is_ours = |name: &OsString| {
                    laps_files::is_temporary_name(name) || with_suffix(Path::new(LOCKED), ".lock").as_os_str() == name
                };
                if let Some(first) = names.find(|name| !is_ours(name)) {
                    let found = first.to_string_lossy().into_owned();
                    return Err(TrainError::Foreign { folder: path.to_owned(), found }.into());
                }
            }
        }
        if resume && !folder.file(RunFiles::STATE).exists() {
            return Err(TrainError::NoState { folder: path.to_owned() }.into());
        }
        // The hash first: it makes the folder one of a run, also if the run is killed before the next file.
        folder.write(RunFiles::HASH, format!("{}\n", hash.value()).as_bytes())?;
        folder.write(RunFiles::ENTRY, entry.as_bytes())?;
        Ok(folder)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file `name` in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file. It replaces the previous one when it is complete and on disk.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.file(name);
        laps_files::replace(&path, bytes).map_err(|source| self.failed("write", &path, source))
    }

    fn failed(&self, action: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::Io(IoError::new(action, path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigHash, RunFiles, RunFolder};

    #[test]
    fn folder_accepts_one_configuration_and_keeps_its_files() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let open = |hash: &str, resume: bool| RunFolder::open(&path, "name: x", &ConfigHash::of_texts(&[hash]), resume);
        let message = |hash: &str, resume: bool| open(hash, resume).unwrap_err().to_string();
        assert!(message("a", true).contains("no state"));
        let folder = open("a", false).unwrap();
        folder.write(RunFiles::STATE, b"state").unwrap();
        drop(folder);
        assert!(message("a", false).contains("holds a run already"));
        assert!(message("b", true).contains("another configuration"));
        open("a", true).unwrap();
        assert_eq!(fs_err::read(path.join(RunFiles::STATE)).unwrap(), b"state");
        assert!(!path.join("run.lock").exists());

        let killed = root.path().join("killed");
        fs_err::create_dir(&killed).unwrap();
        fs_err::write(killed.join(".config.sha256.4711-0.part"), "").unwrap();
        fs_err::write(killed.join("run.lock"), "4711").unwrap();
        RunFolder::open(&killed, "", &ConfigHash::of_texts(&["a"]), false).unwrap();

        let other = root.path().join("other");
        fs_err::create_dir(&other).unwrap();
        fs_err::write(other.join("thesis.txt"), "").unwrap();
        let refused = RunFolder::open(&other, "", &ConfigHash::of_texts(&["a"]), false).unwrap_err().to_string();
        assert!(refused.contains("thesis.txt"), "{refused}");
    }

    #[test]
    fn only_a_resumed_run_may_have_more_epochs_than_before() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "", &ConfigHash::of_texts(&["one"]), false).unwrap();
        folder.write(RunFiles::STATE, b"state").unwrap();
        drop(folder);
        let longer = ConfigHash::of_texts(&["one", "two"]);
        assert!(RunFolder::open(root.path(), "", &longer, false).is_err());
        RunFolder::open(root.path(), "", &longer, true).unwrap();
        let shorter = RunFolder::open(root.path(), "", &ConfigHash::of_texts(&["one"]), true).unwrap_err().to_string();
        assert!(shorter.contains("another configuration"), "{shorter}");
    }

    #[test]
    fn second_run_names_the_first() {
        let root = tempfile::tempdir().unwrap();
        let open = |resume: bool| RunFolder::open(root.path(), "", &ConfigHash::of_texts(&["a"]), resume);
        let first = open(false).unwrap();
        first.write(RunFiles::STATE, b"state").unwrap();
        for resume in [false, true] {
            let error = open(resume).unwrap_err();
            assert!(error.hint().is_some());
            let expected = format!("another process is writing `{}`\n", root.path().display());
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert!(error.to_string().ends_with(&format!("found: process {}", std::process::id())), "{error}");
        }
        drop(first);
        open(true).unwrap();
    }

    #[test]
    fn failed_write_keeps_the_previous_file() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "", &ConfigHash::of_texts(&["a"]), false).unwrap();
        // A folder of that name, which no file replaces, makes the write fail, as a full disk does.
        let path = folder.file(RunFiles::STATE);
        fs_err::create_dir(&path).unwrap();
        fs_err::write(path.join("good"), "good").unwrap();
        let error = folder.write(RunFiles::STATE, b"worse").unwrap_err().to_string();
        assert!(error.contains("cannot write"), "{error}");
        assert_eq!(fs_err::read(path.join("good")).unwrap(), b"good");
    }
}
