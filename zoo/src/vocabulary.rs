//! Finds the vocabulary of an entry.

use std::path::Path;

use laps_data::{TokenizerConfig, Vocabulary, scenes};
use laps_hub::{
    registry::Entry,
    store::{FileStore, data_set},
};

use crate::Result;

/// Finds the vocabulary of an entry, in this order: the file `given`; the entry's data file below `data` or next to the entry
/// file; the vocabulary of the drawn scenes; for a published entry, the file in the cache. Returns None if none exists.
pub fn find_vocabulary(entry: &Entry, given: Option<&Path>, data: Option<&Path>) -> Result<Option<Vocabulary>> {
    let found = find(entry, given, data)?;
    Ok(found.map(|vocabulary| vocabulary.with_lower_case(entry.data.do_lower_case)))
}

fn find(entry: &Entry, given: Option<&Path>, data: Option<&Path>) -> Result<Option<Vocabulary>> {
    if let Some(path) = given {
        return Ok(Some(Vocabulary::read(path)?));
    }
    // A built-in entry has no paths without a root.
    if let Ok(paths) = entry.data_paths(data)
        && paths.vocab.is_file()
    {
        return Ok(Some(Vocabulary::read(&paths.vocab)?));
    }
    if entry.data.drawn.is_some() {
        let bytes = (scenes::vocabulary().join("\n") + "\n").into_bytes();
        return Ok(Some(Vocabulary { path: "vocab.txt".into(), bytes, config: TokenizerConfig::default() }));
    }
    if data_set(entry).is_some()
        && let Ok(store) = FileStore::from_environment()
    {
        let path = store.vocabulary(&entry.model, None)?.path;
        if path.is_file() {
            return Ok(Some(Vocabulary::read(&path)?));
        }
    }
    Ok(None)
}
