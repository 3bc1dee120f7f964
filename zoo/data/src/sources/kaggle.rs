//! `results.csv` of Flickr30K on Kaggle: `image_name| comment_number| comment`, one row per caption.
//!
//! The separator is `|` and nothing is quoted. One row of the published file lacks the separator before its caption.

use super::{ItemSink, Source, SourceItem, unusable};
use crate::DataError;
use laps_files::{decode_text, lines};

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    for file in &source.files {
        let text = decode_text(fs_err::read(file)?).map_err(|error| DataError::not_utf8(file, error))?;
        let mut rows = (1..).zip(lines(&text)).filter(|(_, line)| !line.trim().is_empty()).peekable();
        let header = rows.next().map_or("", |(_, line)| line);
        let columns: Vec<&str> = header.split('|').map(str::trim).collect();
        if columns != ["image_name", "comment_number", "comment"] {
            return Err(unusable(file, "the header `image_name| comment_number| comment`", format!("`{header}`")));
        }
        let mut item: Option<SourceItem> = None;
        for (line, text) in rows {
            let Some((name, number, caption)) = row(text) else {
                let expected = format!("`image_name| comment_number| comment` in line {line}");
                return Err(unusable(file, expected, format!("`{}`", text.chars().take(80).collect::<String>())));
            };
            if let Some(item) = item.as_mut().filter(|item| item.name == name) {
                item.captions.push(caption.to_owned());
                continue;
            }
            if number != 0 {
                let expected = format!("comment 0 as the first one of `{name}` in line {line}");
                return Err(unusable(file, expected, format!("comment {number}")));
            }
            let next = SourceItem {
                origin: (file.clone(), format!("line {line}")),
                split: None,
                id: name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned(),
                name: name.to_owned(),
                captions: vec![caption.to_owned()],
                bytes: None,
            };
            if let Some(item) = item.replace(next) {
                sink(item)?;
            }
        }
        if let Some(item) = item {
            sink(item)?;
        }
    }
    Ok(())
}

/// Name, number and caption of a row. A separator that is missing after the number is added.
fn row(text: &str) -> Option<(&str, u32, &str)> {
    let (name, rest) = text.split_once('|')?;
    let (number, caption) = match rest.split_once('|') {
        Some((number, caption)) => (number.trim(), caption),
        None => rest.trim_start().split_once(' ')?,
    };
    Some((name.trim(), number.parse().ok()?, caption))
}
