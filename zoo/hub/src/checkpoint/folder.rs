//! Folders in place of a checkpoint.

use std::path::{Path, PathBuf};

use super::{CheckpointError, format::is_checkpoint_name};

/// Name of the weights in the folder of a Hugging Face model, preferred to other files.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Names of the lists of files of a model that is stored in several.
const SHARDS: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

/// `path`, or the only checkpoint in the folder that it names.
///
/// # Errors
/// [`CheckpointError::Foreign`] for a folder with none or several, [`CheckpointError::Io`] for one that cannot be read.
pub(super) fn resolve(path: PathBuf) -> Result<PathBuf, CheckpointError> {
    if !path.is_dir() {
        return Ok(path);
    }
    let foreign =
        |found: String, hint: String| CheckpointError::Foreign { path: path.clone(), found, hint: Some(hint) };
    if let Some(list) = SHARDS.iter().find(|name| path.join(name).is_file()) {
        let hint = "save it as one file: `model.save_pretrained(FOLDER, max_shard_size=\"100GB\")` in Python";
        return Err(foreign(format!("a model in several files, which `{list}` lists"), hint.to_owned()));
    }
    if let Some(weights) = WEIGHTS.iter().map(|name| path.join(name)).find(|weights| weights.is_file()) {
        return Ok(weights);
    }
    let names = sorted_names(&path)?;
    if let Some(inner) = unpacked(&path, &names) {
        let parent = inner.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = inner.file_name().map_or(Path::new("."), Path::new);
        // torch needs the folder in the archive.
        let hint = format!("pack it again: `cd {} && zip -0 -r packed.pth {}`", quoted(parent), quoted(name));
        return Err(foreign("a folder with the unpacked contents of a `.pth` file".to_owned(), hint));
    }
    let checkpoints: Vec<&String> =
        names.iter().filter(|name| is_checkpoint_name(name) && path.join(name).is_file()).collect();
    match checkpoints.as_slice() {
        [only] => Ok(path.join(only)),
        [] => Err(foreign("a folder without a checkpoint".to_owned(), "name the file of the checkpoint".to_owned())),
        [first, ..] => {
            let found = format!("a folder with {} checkpoints", checkpoints.len());
            Err(foreign(found, format!("name one of them, such as {}", quoted(&path.join(first)))))
        }
    }
}

/// The folder of `data.pkl` and `data`: `path` or a folder in it.
fn unpacked(path: &Path, names: &[String]) -> Option<PathBuf> {
    let inner = names.iter().map(|name| path.join(name));
    std::iter::once(path.to_owned()).chain(inner).find(|folder| folder.join("data.pkl").is_file())
}

/// Names that are not UTF-8 are no checkpoint that a hint could name.
fn sorted_names(path: &Path) -> Result<Vec<String>, CheckpointError> {
    let unreadable = |source| CheckpointError::Io { path: path.to_owned(), source };
    let entries = fs_err::read_dir(path).map_err(unreadable)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
    let mut names: Vec<String> = names.filter_map(Result::transpose).collect::<Result<_, _>>().map_err(unreadable)?;
    names.sort();
    Ok(names)
}

/// `path` for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
