//! A folder of images, each with a text file of the same name that has one caption per line.
//!
//! The first folder below the root says the split if it is a known word, as in `val/dog.jpg`.

use std::path::PathBuf;

use super::{ItemSink, Source, SourceItem, files, unusable};
use crate::{DataError, captions::rows, image::READABLE_EXTENSIONS};

/// Returns the files whose names are not UTF-8. They are left out.
pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<Vec<PathBuf>, DataError> {
    let mut unnamed = Vec::new();
    for folder in &source.files {
        let mut images = Vec::new();
        let mut texts = std::collections::BTreeSet::new();
        files::walk(folder, &mut |_, below| {
            let Some(name) = files::image_name(below) else {
                unnamed.push(below.to_owned());
                return;
            };
            let Some((stem, extension)) = name.rsplit_once('.') else { return };
            let extension = extension.to_ascii_lowercase();
            if extension == "txt" {
                texts.insert(stem.to_owned());
            } else if READABLE_EXTENSIONS.contains(&extension.as_str()) {
                images.push((stem.to_owned(), name));
            }
        })?;
        images.sort();
        for (stem, name) in images {
            let path = folder.join(format!("{stem}.txt"));
            if !texts.remove(&stem) {
                return Err(unusable(&folder.join(&name), format!("a file of captions `{stem}.txt`"), "none"));
            }
            let split = name.split_once('/').and_then(|(first, _)| source.names.known(first));
            sink(SourceItem {
                origin: (path.clone(), "captions".to_owned()),
                split: split.map(str::to_owned),
                id: stem,
                name,
                captions: rows(&path)?,
                bytes: None,
            })?;
        }
        if let Some(stem) = texts.first() {
            let path = folder.join(format!("{stem}.txt"));
            return Err(unusable(&path, "an image of the same name", "none, or two text files for one image"));
        }
    }
    Ok(unnamed)
}
