//! `docci_descriptions.jsonlines` of DOCCI (Onoe et al., ECCV 2024): one object per line with `example_id`, `split`,
//! `image_file` and `description`.
//!
//! The splits are `train`, `test`, `qual_dev` and `qual_test`.

use serde::Deserialize;

use super::{ItemSink, Source, SourceItem, unusable};
use crate::DataError;
use laps_files::{decode_text, lines};

#[derive(Deserialize)]
struct Description {
    example_id: String,
    split: String,
    image_file: String,
    description: String,
}

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    for file in &source.files {
        let text = decode_text(fs_err::read(file)?).map_err(|error| DataError::not_utf8(file, error))?;
        for (line, text) in (1..).zip(lines(&text)).filter(|(_, line)| !line.trim().is_empty()) {
            let item: Description = serde_json::from_str(text).map_err(|error| {
                let expected =
                    format!("an object with `example_id`, `split`, `image_file` and `description` in line {line}");
                unusable(file, expected, error.to_string())
            })?;
            sink(SourceItem {
                origin: (file.clone(), format!("line {line}")),
                split: Some(item.split),
                id: item.example_id,
                name: item.image_file,
                captions: vec![item.description],
                bytes: None,
            })?;
        }
    }
    Ok(())
}
