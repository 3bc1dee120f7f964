//! Entries that need no files: their scenes are drawn, and their checkpoints are part of the program.

use std::path::{Path, PathBuf};

use laps_data::scenes;
use laps_files::cache;
use laps_hub::registry::{self, DataPaths, Entry};

use crate::{Error, Result};

/// Where the data of an entry is. Scenes of an entry that draws them are drawn into the cache if `root` is not given.
///
/// Drawing takes a while, so only the split that is asked for is drawn; without one, the test split.
pub fn data_paths(entry: &Entry, root: Option<&Path>, split: Option<&str>) -> Result<DataPaths> {
    split_paths(entry, root, &[split.unwrap_or(&entry.data.test)])
}

/// The same for several splits.
pub fn split_paths(entry: &Entry, root: Option<&Path>, splits: &[&str]) -> Result<DataPaths> {
    match (root, &entry.data.drawn) {
        (None, Some(drawn)) => {
            let name = format!("scenes-{}-{}-{}-{}", drawn.seed, drawn.train, drawn.dev, drawn.test);
            let folder = cache::folder()?.join(name);
            let wanted = |split: &str| {
                let found = scenes::Split::ALL.into_iter().find(|known| known.to_string() == split);
                found.ok_or_else(|| Error::NoSuchSplit {
                    split: split.to_owned(),
                    expected: scenes::Split::ALL.map(|known| format!("`{known}`")).join(", "),
                })
            };
            let wanted = splits.iter().map(|split| wanted(split)).collect::<Result<Vec<_>>>()?;
            scenes::write(&folder, drawn, &wanted)?;
            Ok(entry.data_paths(Some(&folder))?)
        }
        _ => Ok(entry.existing_data_paths(root)?),
    }
}

/// The checkpoint that is part of the program, as a file in the cache, and what it is.
pub fn checkpoint(entry: &Entry) -> Result<(PathBuf, Option<String>)> {
    let Some(embedded) = registry::embedded_checkpoint(&entry.name) else { return Err(Error::no_checkpoint(entry)) };
    let path = cache::folder()?.join(format!("{}-{}.safetensors", entry.name, &embedded.sha256()[..16]));
    if fs_err::read(&path).ok().as_deref() != Some(embedded.bytes) {
        laps_files::replace(&path, embedded.bytes).map_err(|source| laps_files::Error::Io {
            action: "write",
            path: path.clone(),
            source,
        })?;
    }
    Ok((path, Some(embedded.note.to_owned())))
}
