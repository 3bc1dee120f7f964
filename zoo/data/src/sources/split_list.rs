//! A list of splits: which images a split has, and in which order.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{SplitNames, karpathy, unusable};
use crate::{DataError, captions::rows};

/// Split and position of an image in a list of splits.
#[derive(Clone, Debug)]
pub(super) struct SplitPosition {
    pub(super) split: String,
    pub(super) rank: usize,
    /// Id and name in Karpathy's JSON.
    pub(super) id_and_name: Option<(String, String)>,
}

/// Split and position by id, file name or its stem.
pub(super) struct SplitList {
    by_name: HashMap<String, SplitPosition>,
    by_id: HashMap<String, SplitPosition>,
    pub(super) count: usize,
}

impl SplitList {
    pub(super) fn read(path: &Path, names: &SplitNames) -> Result<Self, DataError> {
        let mut list = Self { by_name: HashMap::new(), by_id: HashMap::new(), count: 0 };
        if path.is_dir() {
            for (name, file) in files(path)? {
                let split = names.known(&name).unwrap_or(&name).to_owned();
                for key in rows(&file)?.into_iter().filter(|key| !key.is_empty()) {
                    let listed = SplitPosition { split: split.clone(), rank: list.count, id_and_name: None };
                    list.count += 1;
                    list.by_id.entry(key.clone()).or_insert_with(|| listed.clone());
                    list.add_name(key, listed);
                }
            }
        } else {
            for (row, image) in karpathy::images(path)?.into_iter().enumerate() {
                let split = image.split.as_deref().unwrap_or("test");
                let split = names.known(split).unwrap_or(split).to_owned();
                let (name, id) = (image.name(), image.id(row));
                let listed = SplitPosition { split, rank: row, id_and_name: Some((id.clone(), name.clone())) };
                list.count += 1;
                list.by_id.entry(id).or_insert_with(|| listed.clone());
                list.add_name(name, listed);
            }
        }
        match list.count {
            0 => Err(unusable(path, "Karpathy's JSON, or a folder of `<split>.txt`", "no image")),
            _ => Ok(list),
        }
    }

    fn add_name(&mut self, name: String, listed: SplitPosition) {
        let file = name.rsplit('/').next().unwrap_or(&name).to_owned();
        let stem = file.rsplit_once('.').map(|(stem, _)| stem.to_owned());
        for key in [Some(name), Some(file), stem].into_iter().flatten() {
            self.by_name.entry(key).or_insert_with(|| listed.clone());
        }
    }

    pub(super) fn find(&self, id: &str, name: &str) -> Option<&SplitPosition> {
        let file = name.rsplit('/').next().unwrap_or(name);
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        // A file name is unique; an id may be a number of another numbering.
        [name, file, stem].into_iter().find_map(|key| self.by_name.get(key)).or_else(|| self.by_id.get(id))
    }
}

/// The text files of a folder by the name of their split, sorted.
pub(super) fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
        if let Some(stem) = stem.filter(|_| path.extension().is_some_and(|extension| extension == "txt")) {
            files.push((stem, path));
        }
    }
    files.sort();
    Ok(files)
}
