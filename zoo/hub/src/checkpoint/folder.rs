//! Folders in place of a checkpoint.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use laps_files::{IoError, irregular, path_to_text};

use super::{CheckpointError, format::is_checkpoint_name, shards::LISTS};

/// Names of the weights in the folder of a Hugging Face model, preferred to other files. Where several are there,
/// transformers takes the first.
const WEIGHTS: [&str; 4] = ["model.safetensors", LISTS[0], "pytorch_model.bin", LISTS[1]];

/// The kind of target that a path names.
pub(super) enum CheckpointPath {
    /// A checkpoint in one file.
    File(PathBuf),
    /// The list of a checkpoint in several files.
    ShardList(PathBuf),
    /// The unpacked contents of a `.pth` file: the folder of `data.pkl`.
    Unpacked(PathBuf),
}

/// The checkpoint at `path`, or the only one in the folder that it names.
///
/// # Errors
/// [`CheckpointError::Foreign`] for a folder with none or several, [`CheckpointError::Io`] for one that cannot be read.
pub(super) fn resolve(path: PathBuf) -> Result<CheckpointPath, CheckpointError> {
    let foreign =
        |found: String, hint: String| CheckpointError::Foreign { path: path.clone(), found, hint: Some(hint) };
    if let Some(found) = fs_err::metadata(&path).ok().and_then(|metadata| irregular(metadata.file_type())) {
        // Tensors are read at their offsets, and opening a FIFO waits for its writer.
        return Err(foreign(found.to_owned(), "name a file on a disk".to_owned()));
    }
    if !path.is_dir() {
        return Ok(match path.file_name().is_some_and(|name| LISTS.iter().any(|list| name == *list)) {
            true => CheckpointPath::ShardList(path),
            false => CheckpointPath::File(path),
        });
    }
    if let Some(weights) = WEIGHTS.iter().map(|name| path.join(name)).find(|weights| weights.is_file()) {
        return resolve(weights);
    }
    let names = sorted_names(&path)?;
    let unpacked = unpacked(&path, &names).map(CheckpointPath::Unpacked);
    let files = names.iter().filter(|name| is_checkpoint_name(name)).map(|name| path.join(name));
    let mut checkpoints: Vec<CheckpointPath> =
        unpacked.chain(files.filter(|path| path.is_file()).map(CheckpointPath::File)).collect();
    match (checkpoints.pop(), checkpoints.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => {
            Err(foreign("a folder without a checkpoint".to_owned(), "name the file of the checkpoint".to_owned()))
        }
        (
            Some(CheckpointPath::File(last) | CheckpointPath::ShardList(last) | CheckpointPath::Unpacked(last)),
            others,
        ) => {
            let found = format!("a folder with {} checkpoints", others + 1);
            Err(foreign(found, format!("name one of them, such as {}", quoted(&last))))
        }
    }
}

/// The folders of a `data.pkl`: `path` and folders in it.
fn unpacked(path: &Path, names: &[OsString]) -> impl Iterator<Item = PathBuf> {
    let inner = names.iter().map(|name| path.join(name));
    std::iter::once(path.to_owned()).chain(inner).filter(|folder| folder.join("data.pkl").is_file())
}

fn sorted_names(path: &Path) -> Result<Vec<OsString>, CheckpointError> {
    let unreadable = |source| CheckpointError::Io(IoError::new("read", path, source));
    let entries = fs_err::read_dir(path).map_err(unreadable)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names: Vec<OsString> = names.collect::<Result<_, _>>().map_err(unreadable)?;
    names.sort();
    Ok(names)
}

/// `path` for a shell. In bash and zsh, `$'...'` has the escapes of [`path_to_text`].
fn quoted(path: &Path) -> String {
    match path.to_str() {
        Some(text) => format!("'{}'", text.replace('\'', r"'\''")),
        None => format!("$'{}'", path_to_text(path).replace('\'', r"\'")),
    }
}
