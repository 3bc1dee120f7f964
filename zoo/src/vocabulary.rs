//! Finds the WordPiece vocabulary of an entry.

use std::path::{Path, PathBuf};

use laps_data::scenes;
use laps_hub::{
    registry::Entry,
    store::{Store, data_set},
};

use crate::Result;

/// A WordPiece vocabulary.
pub struct Vocabulary {
    /// Path for messages.
    pub path: PathBuf,
    /// Content of the file.
    pub bytes: Vec<u8>,
}

impl Vocabulary {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs_err::read(path).map_err(laps_data::DataError::from)?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// Finds a vocabulary, in this order: the file `given`; the entry's data file below `data` or next to the entry file; the
    /// vocabulary of the drawn scenes; for a published entry, the file in the cache. Returns None if none exists.
    pub fn find(entry: &Entry, given: Option<&Path>, data: Option<&Path>) -> Result<Option<Self>> {
        if let Some(path) = given {
            return Self::read(path).map(Some);
        }
        // A built-in entry has no paths without a root.
        if let Ok(paths) = entry.data_paths(data)
            && paths.vocab.is_file()
        {
            return Self::read(&paths.vocab).map(Some);
        }
        if entry.data.drawn.is_some() {
            let bytes = (scenes::vocabulary().join("\n") + "\n").into_bytes();
            return Ok(Some(Self { path: "vocab.txt".into(), bytes }));
        }
        if data_set(entry).is_some()
            && let Ok(store) = Store::from_environment()
        {
            let path = store.vocabulary(None)?.path;
            if path.is_file() {
                return Self::read(&path).map(Some);
            }
        }
        Ok(None)
    }
}
