//! `share-captioner_coco_lcs_sam_1246k_1107.json` of ShareGPT4V (Chen et al., ECCV 2024): an array of objects with `image`
//! and `conversations`, the second of which is the caption.
//!
//! The first 1,000 items are the test split of the retrieval of Long-CLIP. The others, its training data, are not read.

use std::{fmt, io::BufReader};

use laps_files::skip_mark;
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor},
};

use super::{ItemSink, Source, SourceItem, unusable};
use crate::DataError;

/// Items of the test split.
const TEST_ITEMS: usize = 1000;

#[derive(Deserialize)]
struct Item {
    image: String,
    conversations: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    value: String,
}

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    for file in &source.files {
        let mut items = Vec::new();
        let mut content = BufReader::new(fs_err::File::open(file)?);
        skip_mark(&mut content)?;
        let read = FirstItems(&mut items).deserialize(&mut serde_json::Deserializer::from_reader(content));
        // The rest of the array is not parsed, which is an error for the parser.
        if let Err(error) = read
            && items.len() < TEST_ITEMS
        {
            let expected = "an array of objects with `image` and `conversations`";
            return Err(unusable(file, expected, error.to_string()));
        }
        for (row, Item { image, conversations }) in items.into_iter().enumerate() {
            let place = format!("item {row}");
            let Some(caption) = conversations.into_iter().nth(1) else {
                return Err(unusable(file, format!("a caption as the second of `conversations` of {place}"), "none"));
            };
            sink(SourceItem {
                origin: (file.clone(), place),
                split: None,
                id: image.rsplit_once('.').map_or(image.as_str(), |(stem, _)| stem).to_owned(),
                name: image,
                captions: vec![caption.value],
                bytes: None,
            })?;
        }
    }
    Ok(())
}

/// Collects the first items of an array.
struct FirstItems<'a>(&'a mut Vec<Item>);

impl<'de> DeserializeSeed<'de> for FirstItems<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FirstItems<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            self.0.push(item);
            if self.0.len() == TEST_ITEMS {
                return Err(A::Error::custom("the rest is not needed"));
            }
        }
        Ok(())
    }
}
