//! The folder of a run.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use super::TrainError;
use crate::{Error, Result};

/// A folder with the files of one run. Each of them is either complete or as it was before.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// Names of the files of a run.
#[derive(Clone, Copy, Debug)]
pub struct Files;

impl Files {
    /// Weights of the epoch with the best recalls.
    pub const BEST: &str = "best.safetensors";
    /// Weights of the last epoch.
    pub const LAST: &str = "last.safetensors";
    /// Everything that is needed to go on.
    pub const STATE: &str = "state.safetensors";
    /// The effective entry.
    pub const ENTRY: &str = "entry.yaml";
    /// The effective configuration's hash.
    pub const HASH: &str = "config.sha256";
    /// A JSON object a line.
    pub const LOG: &str = "log.jsonl";
}

impl RunFolder {
    /// Opens the folder for a run of the configuration `hash` whose effective entry is `entry`. Only with `resume` may it
    /// hold a run, and then it has to hold one of that configuration.
    pub fn open(path: &Path, entry: &str, hash: &str, resume: bool) -> Result<Self> {
        let folder = Self { path: path.to_owned() };
        let known = match fs_err::read_to_string(folder.file(Files::HASH)) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Io { action: "read", path: folder.file(Files::HASH), source }),
        };
        match known {
            Some(found) if found != hash => {
                let (folder, expected) = (path.to_owned(), hash.to_owned());
                return Err(TrainError::OtherRun { folder, expected, found }.into());
            }
            Some(_) if !resume && folder.file(Files::STATE).exists() => {
                return Err(TrainError::Occupied { folder: path.to_owned() }.into());
            }
            Some(_) => {}
            None => {
                if resume {
                    return Err(TrainError::NoState { folder: path.to_owned() }.into());
                }
                fs_err::create_dir_all(path).map_err(|source| folder.failed("create", path, source))?;
                let mut entries = fs_err::read_dir(path).map_err(|source| folder.failed("read", path, source))?;
                if let Some(Ok(first)) = entries.next() {
                    let found = first.file_name().to_string_lossy().into_owned();
                    return Err(TrainError::Foreign { folder: path.to_owned(), found }.into());
                }
            }
        }
        if resume && !folder.file(Files::STATE).exists() {
            return Err(TrainError::NoState { folder: path.to_owned() }.into());
        }
        folder.write(Files::ENTRY, entry.as_bytes())?;
        folder.write(Files::HASH, format!("{hash}\n").as_bytes())?;
        Ok(folder)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file `name` in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that takes the place of the one before when it is complete and on the disk.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (part, path) = (self.file(&format!(".{name}.part")), self.file(name));
        let attempt = || -> std::io::Result<()> {
            let mut file = fs_err::File::create(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            drop(file);
            fs_err::rename(&part, &path)?;
            // The new name is on the disk when the folder is.
            fs_err::File::open(&self.path)?.sync_all()
        };
        attempt().map_err(|source| {
            // What is left over is in nobody's way; the error that counts is the first.
            let _ = fs_err::remove_file(&part);
            self.failed("write", &path, source)
        })
    }

    fn failed(&self, action: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::Io { action, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::{Files, RunFolder};

    #[test]
    fn a_folder_takes_one_configuration_and_keeps_what_it_has() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let message = |hash: &str, resume: bool| RunFolder::open(&path, "", hash, resume).unwrap_err().to_string();
        assert!(message("a", true).contains("no state"));
        let folder = RunFolder::open(&path, "name: x", "a", false).unwrap();
        folder.write(Files::STATE, b"state").unwrap();
        assert!(message("a", false).contains("holds a run already"));
        assert!(message("b", true).contains("another configuration"));
        RunFolder::open(&path, "name: x", "a", true).unwrap();
        assert_eq!(fs_err::read(folder.file(Files::STATE)).unwrap(), b"state");

        let other = root.path().join("other");
        fs_err::create_dir(&other).unwrap();
        fs_err::write(other.join("thesis.txt"), "").unwrap();
        let refused = RunFolder::open(&other, "", "a", false).unwrap_err().to_string();
        assert!(refused.contains("thesis.txt"), "{refused}");
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "", "a", false).unwrap();
        folder.write(Files::STATE, b"good").unwrap();
        // A folder in the place of the temporary file: creating it fails as on a full disk.
        fs_err::create_dir(folder.file(".state.safetensors.part")).unwrap();
        let error = folder.write(Files::STATE, b"worse").unwrap_err().to_string();
        assert!(error.contains("can not write"), "{error}");
        assert_eq!(fs_err::read(folder.file(Files::STATE)).unwrap(), b"good");
    }
}
