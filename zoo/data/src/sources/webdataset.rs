//! Tar files of the WebDataset format: the files of a sample follow each other and have the same key, the name up to the
//! first dot after the last slash.
//!
//! A sample is an image, and captions: `.txt` with one per line, or `.json` with `caption` or `captions`. The JSON may also
//! have `id` (or `img_id`, `image_id`, `cocoid`), `filename` and `split`. Without a split in the JSON, the name of the tar
//! file says it, as in `test-000000.tar`.

use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use fs_err::File;
use serde::Deserialize;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::{CaptionUse, ItemSink, JsonId, MAX_IMAGE_BYTES, MAX_TEXT_BYTES, Source, SourceItem, unusable};
use crate::{DataError, image::READABLE_EXTENSIONS};
use laps_files::{lines, strip_mark_bytes};

/// Size of a block of a tar file.
const BLOCK: u64 = 512;

/// Files of one key.
#[derive(Default)]
struct Sample {
    key: String,
    image: Option<(String, Vec<u8>)>,
    text: Option<String>,
    json: Option<SampleMetadata>,
}

#[derive(Deserialize)]
struct SampleMetadata {
    #[serde(alias = "img_id", alias = "image_id", alias = "imgid", alias = "cocoid")]
    id: Option<JsonId>,
    #[serde(alias = "file_name")]
    filename: Option<String>,
    split: Option<String>,
    #[serde(alias = "captions")]
    caption: Option<TextOrList>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrList {
    Text(String),
    List(Vec<String>),
}

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    source.files.iter().try_for_each(|path| read_file(source, path, sink))
}

fn read_file(source: &Source, path: &Path, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    if is_gzip {
        return Err(unusable(path, "an uncompressed tar file", "a gzip file"));
    }
    file.seek(SeekFrom::Start(0))?;
    let broken = |error: std::io::Error| unusable(path, "a complete tar file", error.to_string());
    let mut archive = Archive::new(file);
    let mut sample = Sample::default();
    let mut long_name: Option<String> = None;
    let mut end = 0;
    // Raw entries: long names are read here, with a limit.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let size = entry.header().entry_size().map_err(broken)?;
        end = entry.raw_file_position() + size.div_ceil(BLOCK) * BLOCK;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let bytes = content(path, &mut entry, "a long name", MAX_TEXT_BYTES)?;
                let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes).to_vec();
                long_name = Some(utf8(path, bytes)?);
                continue;
            }
            EntryType::XHeader => {
                let bytes = content(path, &mut entry, "an extended header", MAX_TEXT_BYTES)?;
                long_name = extended_name(path, &bytes)?.or(long_name);
                continue;
            }
            EntryType::XGlobalHeader | EntryType::GNULongLink | EntryType::Directory => continue,
            _ => {}
        }
        let name = match long_name.take() {
            Some(name) => name,
            None => utf8(path, entry.header().path_bytes().into_owned())?,
        };
        let (key, extension) = split_key(&name);
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return Err(unusable(path, "regular files", format!("`{name}`, a link, device or sparse file")));
        }
        if key != sample.key {
            std::mem::replace(&mut sample, Sample { key: key.to_owned(), ..Sample::default() })
                .send(source, path, sink)?;
        }
        let mut content = |limit: u64| content(path, &mut entry, &name, limit);
        let lower = extension.to_ascii_lowercase();
        match lower.as_str() {
            "txt" => sample.text = Some(utf8(path, content(MAX_TEXT_BYTES)?)?),
            "json" => {
                let metadata = serde_json::from_slice(strip_mark_bytes(&content(MAX_TEXT_BYTES)?));
                let expected = "`id`, `filename`, `split` and `caption` in a JSON file";
                let refused = |error: serde_json::Error| unusable(path, expected, format!("`{name}`: {error}"));
                sample.json = Some(metadata.map_err(refused)?);
            }
            other if READABLE_EXTENSIONS.contains(&other) => {
                if sample.image.is_some() {
                    return Err(unusable(path, format!("one image with the key `{key}`"), "two"));
                }
                sample.image = Some((name.clone(), content(MAX_IMAGE_BYTES)?));
            }
            _ => {}
        }
    }
    let length = archive.into_inner().metadata()?.len();
    if length < end + BLOCK {
        return Err(unusable(path, "a complete tar file", "no end-of-archive marker: it is cut"));
    }
    sample.send(source, path, sink)
}

/// The bytes of a member.
fn content(path: &Path, entry: &mut Entry<'_, File>, name: &str, limit: u64) -> Result<Vec<u8>, DataError> {
    let broken = |error: std::io::Error| unusable(path, "a complete tar file", error.to_string());
    let size = entry.header().entry_size().map_err(broken)?;
    if size > limit {
        return Err(unusable(path, format!("at most {limit} bytes in `{name}`"), format!("{size} bytes")));
    }
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes).map_err(broken)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(unusable(path, format!("{size} bytes in `{name}`"), format!("{}: the file is cut", bytes.len()))),
    }
}

impl Sample {
    /// Passes the sample on, if it has files.
    fn send(self, source: &Source, path: &Path, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
        let Self { key, image, text, json } = self;
        if image.is_none() && text.is_none() && json.is_none() {
            return Ok(());
        }
        let lacks = |what: &str| unusable(path, format!("{what} with the key `{key}`"), "none");
        let (member, bytes) = image.ok_or_else(|| lacks("an image"))?;
        let SampleMetadata { id, filename, split, caption } =
            json.unwrap_or(SampleMetadata { id: None, filename: None, split: None, caption: None });
        let captions = match (caption, text) {
            (Some(TextOrList::List(captions)), _) => captions,
            (Some(TextOrList::Text(caption)), _) => vec![caption],
            (None, Some(text)) => lines(&text).map(str::to_owned).collect(),
            (None, None) if source.captions == CaptionUse::Ignored => Vec::new(),
            (None, None) => return Err(lacks("captions (`.txt`, or `caption` in `.json`)")),
        };
        sink(SourceItem {
            origin: (path.to_owned(), format!("sample `{key}`")),
            split: split.or_else(|| source.names.of_file(path).map(str::to_owned)),
            id: id.map_or_else(|| key.clone(), |id| id.to_string()),
            name: filename.unwrap_or(member),
            captions,
            bytes: Some(bytes),
        })
    }
}

/// Key and extension of a member: the name is cut at the first dot after the last slash.
fn split_key(name: &str) -> (&str, &str) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find('.') {
        Some(dot) => (&name[..start + dot], &name[start + dot + 1..]),
        None => (name, ""),
    }
}

/// The name in an extended header.
fn extended_name(path: &Path, bytes: &[u8]) -> Result<Option<String>, DataError> {
    let mut name = None;
    for extension in PaxExtensions::new(bytes) {
        let extension = extension.map_err(|error| unusable(path, "a complete tar file", error.to_string()))?;
        match extension.key() {
            Ok("path") => name = Some(utf8(path, extension.value_bytes().to_vec())?),
            // Readers that disagree on the size see other members.
            Ok(key) if key == "size" || key.starts_with("GNU.sparse.") => {
                return Err(unusable(path, "regular files", format!("a member with `{key}` in an extended header")));
            }
            _ => {}
        }
    }
    Ok(name)
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, DataError> {
    laps_files::decode_text(bytes).map_err(|error| DataError::not_utf8(path, error))
}
