//! DCI, Densely Captioned Images (Urbanek et al., CVPR 2024): a JSON file per image in `annotations`, with `image`,
//! `short_caption` and `extra_caption`, and `splits.json` next to that folder, which lists the files of each split.
//!
//! The caption of an image is the short one and then the extra one, as in the retrieval of LoTLIP. Captions of regions are
//! not read.

use std::{collections::HashMap, path::PathBuf};

use serde::Deserialize;

use super::{ItemSink, Source, SourceItem, read_json, unusable};
use crate::DataError;

#[derive(Deserialize)]
struct DenseCaption {
    image: String,
    short_caption: String,
    extra_caption: String,
}

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    for (split, file) in listed(source)? {
        let expected = "an object with `image`, `short_caption` and `extra_caption`";
        let DenseCaption { image, short_caption, extra_caption } = read_json(&file, expected)?;
        sink(SourceItem {
            split,
            id: image.rsplit_once('.').map_or(image.as_str(), |(stem, _)| stem).to_owned(),
            name: image,
            captions: vec![format!("{short_caption}\n{extra_caption}")],
            bytes: None,
            origin: (file, "annotation".to_owned()),
        })?;
    }
    Ok(())
}

/// The list of splits, if there is one.
pub(super) fn split_list(source: &Source) -> Option<PathBuf> {
    let list = source.files.first()?.parent()?.with_file_name("splits.json");
    list.is_file().then_some(list)
}

/// The files in the order of `splits.json`, each with its split; without it, all in the order of their names.
fn listed(source: &Source) -> Result<Vec<(Option<String>, PathBuf)>, DataError> {
    let Some(list) = split_list(source) else {
        return Ok(source.files.iter().map(|file| (None, file.clone())).collect());
    };
    let splits: Splits = read_json(&list, "an object from the name of each split to a list of files")?;
    let mut by_name: HashMap<_, &PathBuf> =
        source.files.iter().filter_map(|file| Some((file.file_name()?.to_str()?, file))).collect();
    let mut files = Vec::new();
    let named = [("train", splits.train), ("valid", splits.valid), ("test", splits.test)];
    for (split, name) in named.iter().flat_map(|(split, names)| names.iter().map(move |name| (split, name))) {
        let Some(file) = by_name.remove(name.as_str()) else {
            return Err(unusable(&list, "files in `annotations`, each once", format!("`{}`", name.escape_debug())));
        };
        files.push((Some((*split).to_owned()), file.clone()));
    }
    match by_name.keys().min() {
        Some(name) => Err(unusable(&list, "every file in `annotations`", format!("no `{name}`"))),
        None => Ok(files),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Splits {
    train: Vec<String>,
    valid: Vec<String>,
    test: Vec<String>,
}
