//! Urban1k of Long-CLIP (Zhang et al., ECCV 2024): `image/N.jpg`, each with one caption in `caption/N.txt`.
//!
//! Items are in the order of their numbers. Line breaks in a caption are part of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{ItemSink, Source, SourceItem, files, unusable};
use crate::{DataError, image::READABLE_EXTENSIONS};
use laps_files::read_text;

/// Returns the images whose names are not UTF-8. They are left out.
pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<Vec<PathBuf>, DataError> {
    let mut images = BTreeMap::new();
    let mut unnamed = Vec::new();
    files::walk(&source.images, &mut |_, below| {
        let Some(name) = files::image_name(below) else {
            unnamed.push(below.to_owned());
            return;
        };
        if let Some((stem, extension)) = name.rsplit_once('.')
            && READABLE_EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
        {
            images.insert(stem.to_owned(), name);
        }
    })?;
    let stem = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let mut captions: Vec<_> = source.files.iter().map(|file| (stem(file), file)).collect();
    // Texts that are not numbers come after those that are.
    captions.sort_by_key(|(stem, _)| (stem.parse::<u64>().unwrap_or(u64::MAX), stem.clone()));
    for (stem, file) in captions {
        let Some(name) = images.remove(&stem) else {
            return Err(unusable(file, format!("an image `{stem}` in `{}`", source.images.display()), "none"));
        };
        let caption = read_text(file).map_err(|error| unusable(file, "a caption", error.to_string()))?;
        sink(SourceItem {
            origin: (file.clone(), "caption".to_owned()),
            split: None,
            id: stem,
            name,
            captions: vec![caption],
            bytes: None,
        })?;
    }
    match images.first_key_value() {
        Some((stem, name)) => {
            let expected = format!("a caption `{stem}.txt` of the image");
            Err(unusable(&source.images.join(name), expected, "none"))
        }
        None => Ok(unnamed),
    }
}
