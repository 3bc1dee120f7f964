//! What the cache can do without.

use std::path::{Path, PathBuf};

use super::{Store, StoreError};
use laps_files::{FileLock, beside};

/// A file that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Where it was.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Why it was not needed.
    pub reason: &'static str,
}

/// Endings of files that downloads leave when they are broken off or refused.
const LEFT: [(&str, &str); 3] = [
    (".part", "a download that was broken off"),
    (".part.json", "a download that was broken off"),
    (".rejected", "a download that was refused"),
];

/// Removes downloads that were broken off or refused, and checkpoints whose safetensors file is ready beside them. A
/// download that goes on in another process is left alone.
///
/// # Errors
/// [`StoreError::Io`].
pub fn prune(store: &Store) -> Result<Vec<Pruned>, StoreError> {
    let mut pruned = Vec::new();
    for kind in ["checkpoints", "backbones"] {
        for folder in children(&store.root.join(kind))? {
            for path in children(&folder)? {
                if let Some((target, reason)) = unneeded(&path) {
                    remove(&path, &target, reason, &mut pruned)?;
                }
            }
        }
    }
    Ok(pruned)
}

/// What the file at `path` was to become, and why it is not needed.
fn unneeded(path: &Path) -> Option<(PathBuf, &'static str)> {
    let name = path.file_name()?.to_str()?;
    for (ending, reason) in LEFT {
        if let Some(stem) = name.strip_suffix(ending) {
            return Some((path.with_file_name(stem), reason));
        }
    }
    let ready = path.with_extension("safetensors");
    (name.ends_with(".pth") && ready.is_file()).then(|| (path.to_owned(), "converted: the safetensors file is ready"))
}

fn remove(path: &Path, target: &Path, reason: &'static str, pruned: &mut Vec<Pruned>) -> Result<(), StoreError> {
    let failed = |source| StoreError::io("remove", path, source);
    if beside(target, ".lock").exists() {
        // Held by a process, or left by one that was killed; only the former is in the way.
        let held = fs_err::File::open(beside(target, ".lock")).is_ok_and(|file| file.file().try_lock().is_err());
        if held {
            return Ok(());
        }
    }
    let _lock = FileLock::acquire(target, || {}).map_err(failed)?;
    let Ok(metadata) = fs_err::metadata(path) else { return Ok(()) };
    fs_err::remove_file(path).map_err(failed)?;
    pruned.push(Pruned { path: path.to_owned(), bytes: metadata.len(), reason });
    Ok(())
}

/// What is in `folder`, sorted; nothing where it is not there.
fn children(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::io("read", folder, source);
    match fs_err::read_dir(folder) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            paths.sort();
            Ok(paths)
        }
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(failed(error)),
    }
}
