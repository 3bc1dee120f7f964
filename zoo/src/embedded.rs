//! Entries that need no files: their scenes are drawn, and their checkpoints are part of the program.

use std::path::{Path, PathBuf};

use laps_data::{scenes, sources::Imported};
use laps_files::{IoError, cache, memory_file};
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{self, DataPaths, Entry},
    store::{FileStore, data_set},
};

use crate::{
    Error, Result,
    sources::{self, SourceFolders},
};

/// Where the data of an entry is. Scenes of an entry that draws them are drawn into the cache if `root` is not given, or into
/// the first of the [`cache::private_places`] that works if the cache folder cannot be written.
///
/// Drawing takes a while, so only the split that is asked for is drawn; without one, the test split.
pub fn data_paths(entry: &Entry, root: Option<&Path>, split: Option<&str>) -> Result<DataPaths> {
    split_paths(entry, root, &[split.unwrap_or(&entry.data.test)])
}

/// The same for several splits.
pub fn split_paths(entry: &Entry, root: Option<&Path>, splits: &[&str]) -> Result<DataPaths> {
    if !entry.data.source.is_native() {
        return Ok(source_paths(entry, root)?.0);
    }
    match (root, &entry.data.drawn) {
        (None, Some(drawn)) => {
            let name = format!("scenes-{}-{}-{}-{}", drawn.seed, drawn.train, drawn.dev, drawn.test);
            let wanted = |split: &str| {
                let found = scenes::DrawnSplit::ALL.into_iter().find(|known| known.to_string() == split);
                found.ok_or_else(|| Error::NoSuchSplit {
                    split: split.to_owned(),
                    expected: scenes::DrawnSplit::ALL.map(|known| format!("`{known}`")).join(", "),
                })
            };
            let wanted = splits.iter().map(|split| wanted(split)).collect::<Result<Vec<_>>>()?;
            let draw = |place: laps_files::Result<PathBuf>| -> Result<PathBuf> {
                let folder = place?.join(&name);
                scenes::write(&folder, drawn, &wanted)?;
                Ok(folder)
            };
            let folder = match draw(cache::folder()) {
                Err(error @ (Error::Files(_) | Error::Data(laps_data::Error::Io(_)))) => {
                    cache::private_places().find_map(|place| draw(place).ok()).ok_or_else(|| Error::Other {
                        source: error.into(),
                        hint: Some("set `LAPS_ZOO_CACHE` to a folder that can be written".to_owned()),
                    })?
                }
                drawn => drawn?,
            };
            Ok(entry.data_paths(Some(&folder))?)
        }
        _ => Ok(entry.existing_data_paths(root)?),
    }
}

/// The data paths of an entry whose data has another layout, which is imported into the cache, and what was read. The
/// vocabulary is the one in the cache if the data has none.
pub fn source_paths(entry: &Entry, root: Option<&Path>) -> Result<(DataPaths, Option<Imported>)> {
    let mut paths = entry.data_paths(root)?;
    let source = entry.data.source_below(entry.data_root(root)?).map_err(laps_data::Error::from)?;
    let Some(source) = source else { return Ok((entry.existing_data_folders(root)?, None)) };
    let SourceFolders { captions, images, imported } = sources::cached(&source)?;
    (paths.captions, paths.images) = (captions, images);
    if !paths.vocab.is_file()
        && data_set(entry).is_some()
        && let Ok(store) = FileStore::from_environment()
    {
        paths.vocab = store.vocabulary(&entry.model, None).map_err(laps_hub::Error::from)?.path;
    }
    Ok((paths, imported))
}

/// The checkpoint that is part of the program, and what it is. It is read from memory.
///
/// # Errors
/// [`Error::NoCheckpoint`] for an entry without one.
pub fn checkpoint(entry: &Entry) -> Result<(Checkpoint, Option<String>)> {
    let Some(embedded) = registry::embedded_checkpoint(&entry.name) else { return Err(Error::no_checkpoint(entry)) };
    let name = format!("{}-{}.safetensors", entry.name, &embedded.sha256()[..16]);
    let file = memory_file(&name, embedded.bytes)
        .map_err(|source| laps_files::Error::Io(IoError::new("unpack", &name, source)))?;
    Ok((Checkpoint::read_file(name, file)?, Some(embedded.note.to_owned())))
}
