//! `dataset_flickr30k.json` and `dataset_coco.json` of Karpathy and Fei-Fei (Deep Visual-Semantic Alignments, CVPR 2015).
//!
//! An id is the `cocoid` of an image, or its `imgid`. Images of the split `restval` are training images.

use std::path::Path;

use serde::Deserialize;

use super::{ItemSink, JsonId, Source, SourceItem, read_json};
use crate::DataError;

#[derive(Deserialize)]
struct KarpathyFile {
    images: Vec<KarpathyImage>,
}

#[derive(Deserialize)]
pub(super) struct KarpathyImage {
    filename: String,
    filepath: Option<String>,
    imgid: Option<JsonId>,
    cocoid: Option<JsonId>,
    pub(super) split: Option<String>,
    #[serde(default)]
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

impl KarpathyImage {
    pub(super) fn id(&self, row: usize) -> String {
        self.cocoid.as_ref().or(self.imgid.as_ref()).map_or_else(|| row.to_string(), JsonId::to_string)
    }

    pub(super) fn name(&self) -> String {
        match self.filepath.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => format!("{path}/{}", self.filename),
            None => self.filename.clone(),
        }
    }
}

pub(super) fn images(path: &Path) -> Result<Vec<KarpathyImage>, DataError> {
    let expected = "an object with `images`, each with `filename`, `split` and `sentences`";
    Ok(read_json::<KarpathyFile>(path, expected)?.images)
}

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    for file in &source.files {
        for (row, image) in images(file)?.into_iter().enumerate() {
            sink(SourceItem {
                origin: (file.clone(), format!("image {row}")),
                id: image.id(row),
                name: image.name(),
                split: image.split,
                captions: image.sentences.into_iter().map(|sentence| sentence.raw).collect(),
                bytes: None,
            })?;
        }
    }
    Ok(())
}
