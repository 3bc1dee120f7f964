//! The WordPiece vocabulary of an entry, without its data set.

use std::path::{Path, PathBuf};

use anyhow::Result;
use zoo::{
    data::scenes,
    registry::Entry,
    store::{Store, data_set},
};

/// A vocabulary.
pub(crate) struct Vocabulary {
    /// What messages call it.
    pub(crate) path: PathBuf,
    /// The content of the file.
    pub(crate) bytes: Vec<u8>,
}

impl Vocabulary {
    /// The file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs_err::read(path).map_err(zoo::data::DataError::from).map_err(zoo::Error::from)?;
        Ok(Self { path: path.to_owned(), bytes })
    }
}

/// The file `given`; or that of the entry's data below `data` or beside the entry file; or that of the drawn scenes; or, for
/// a published entry, the one in the cache. None if there is none of them.
pub(crate) fn find(entry: &Entry, given: Option<&Path>, data: Option<&Path>) -> Result<Option<Vocabulary>> {
    if let Some(path) = given {
        return Vocabulary::read(path).map(Some);
    }
    // A built-in entry without a root has no paths.
    if let Ok(paths) = entry.data_paths(data)
        && paths.vocab.is_file()
    {
        return Vocabulary::read(&paths.vocab).map(Some);
    }
    if entry.data.drawn.is_some() {
        let bytes = (scenes::vocabulary().join("\n") + "\n").into_bytes();
        return Ok(Some(Vocabulary { path: "vocab.txt".into(), bytes }));
    }
    if data_set(entry).is_some()
        && let Ok(store) = Store::from_environment()
    {
        let path = store.vocabulary(None)?.path;
        if path.is_file() {
            return Vocabulary::read(&path).map(Some);
        }
    }
    Ok(None)
}
