//! `captions_*.json` of COCO: `images` with `id` and `file_name`, and `annotations` with `image_id`, `id` and `caption`.
//!
//! Captions of an image are in the order of their ids, as in Karpathy's files. If the image folder has a folder such as
//! `val2014`, names begin with it.

use std::collections::HashMap;

use serde::Deserialize;

use super::{ItemSink, Source, SourceItem, read_json, unusable};
use crate::DataError;

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: u64,
    id: u64,
    caption: String,
}

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    for file in &source.files {
        let expected = "an object with `images` (`id`, `file_name`) and `annotations` (`image_id`, `id`, `caption`)";
        let CocoFile { images, annotations } = read_json(file, expected)?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let folder = stem.strip_prefix("captions_").filter(|folder| source.images.join(folder).is_dir());
        let mut captions: HashMap<u64, Vec<(u64, String)>> = HashMap::new();
        for CocoAnnotation { image_id, id, caption } in annotations {
            captions.entry(image_id).or_default().push((id, caption));
        }
        for (row, CocoImage { id, file_name }) in images.into_iter().enumerate() {
            let mut captions = captions.remove(&id).unwrap_or_default();
            captions.sort_by_key(|&(id, _)| id);
            sink(SourceItem {
                origin: (file.clone(), format!("image {row}")),
                split: source.names.of_file(file).map(str::to_owned),
                id: id.to_string(),
                name: folder.map_or_else(|| file_name.clone(), |folder| format!("{folder}/{file_name}")),
                captions: captions.into_iter().map(|(_, caption)| caption).collect(),
                bytes: None,
            })?;
        }
        if let Some(id) = captions.keys().min() {
            return Err(unusable(file, "an image for each annotation", format!("an annotation of image {id}")));
        }
    }
    Ok(())
}
