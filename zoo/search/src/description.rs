//! The description that an index file carries in its metadata.

use std::{
    fmt,
    fs::Metadata,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{IndexPrecision, SearchError, pool::ItemPooling};
use laps_data::{ExifOrientation, image::Preprocessing};
use laps_model::heads::{HeadConfig, HeadSizes};

/// Version of the file format. It changes when the meaning of a field or tensor changes. In version 1, names that are not
/// UTF-8 were stored with replacement characters, and modification times in nanoseconds as one number.
pub(super) const SCHEMA: u32 = 2;

/// Versions that can be read.
pub(super) const READABLE_SCHEMAS: std::ops::RangeInclusive<u32> = 1..=SCHEMA;

/// Kind of the items of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexKind {
    /// Images, searched by text.
    Images,
    /// Captions, searched by image.
    Captions,
}

impl fmt::Display for IndexKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Captions => "captions",
        })
    }
}

/// The model and engine that computed embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUsed {
    /// Name of the entry.
    pub entry: String,
    /// The head.
    #[serde(default, skip_serializing_if = "HeadConfig::is_laps")]
    pub head: HeadConfig,
    /// SHA-256 of the effective configuration of the entry.
    pub config_sha256: String,
    /// SHA-256 of the checkpoint.
    pub checkpoint_sha256: String,
    /// The engine and, if it ran ONNX graphs, which ones.
    pub engine: String,
}

/// Description of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexDescription {
    /// Version of the file format.
    pub schema: u32,
    /// Name and version of the program that wrote the file.
    pub producer: String,
    /// Kind of the items.
    pub kind: IndexKind,
    /// The model that computed the embeddings.
    #[serde(flatten)]
    pub model: ModelUsed,
    /// Image preprocessing.
    pub image: Preprocessing,
    /// Tokens of an image, including the class token.
    pub tokens: usize,
    /// Whether the first token of an image is the class token.
    pub class_token: bool,
    /// Embedding dim.
    pub width: usize,
    /// Precision of the stored embeddings.
    pub precision: IndexPrecision,
    /// Folder of the images, or file of the captions, as [`path_to_text`](laps_files::path_to_text) writes it.
    pub source: String,
    /// Whether images are rotated by their EXIF orientation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exif_orientation: bool,
    /// Hash of the images of a shard; None for an index in one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_sha256: Option<String>,
}

impl IndexDescription {
    /// Describes a new index of embeddings with these sizes.
    pub fn new(
        kind: IndexKind,
        model: ModelUsed,
        image: Preprocessing,
        sizes: &HeadSizes,
        precision: IndexPrecision,
    ) -> Self {
        Self {
            schema: SCHEMA,
            producer: format!("laps-zoo {}", env!("CARGO_PKG_VERSION")),
            kind,
            model,
            image,
            tokens: sizes.tokens,
            class_token: sizes.has_class_token,
            width: sizes.width,
            precision,
            source: String::new(),
            exif_orientation: false,
            inputs_sha256: None,
        }
    }

    /// Treatment of the EXIF orientation of images.
    pub fn orientation(&self) -> ExifOrientation {
        if self.exif_orientation { ExifOrientation::Apply } else { ExifOrientation::Ignore }
    }

    /// Whether the index stores the vectors that the head pools, and nothing else: their cosines are the similarities.
    pub fn is_pooled(&self) -> bool {
        self.model.head.pools()
    }

    /// How embeddings of `kind` are pooled.
    pub(super) fn pooling(&self, kind: IndexKind) -> ItemPooling {
        ItemPooling::of(kind, self.class_token)
    }

    /// Checks that the index at `path` was written by `model`: same head, configuration and checkpoint.
    ///
    /// # Errors
    /// [`SearchError::OtherModel`].
    pub fn check_model(&self, path: &Path, model: &ModelUsed) -> Result<(), SearchError> {
        if model.head != self.model.head {
            let name = |model: &ModelUsed| format!("`{}`, head `{}`", model.entry, model.head);
            return Err(SearchError::OtherModel {
                path: path.to_owned(),
                what: "head",
                expected: name(model),
                found: name(&self.model),
            });
        }
        let pairs = [
            ("configuration", &model.config_sha256, &self.model.config_sha256),
            ("checkpoint", &model.checkpoint_sha256, &self.model.checkpoint_sha256),
        ];
        for (what, expected, found) in pairs {
            if expected != found {
                return Err(SearchError::OtherModel {
                    path: path.to_owned(),
                    what,
                    expected: format!("`{}`, {what} with sha256 {expected}", model.entry),
                    found: format!("`{}`, {what} with sha256 {found}", self.model.entry),
                });
            }
        }
        Ok(())
    }

    /// Checks that the index at `path` holds `expected`.
    ///
    /// # Errors
    /// [`SearchError::Kind`].
    pub fn check_kind(&self, path: &Path, expected: IndexKind) -> Result<(), SearchError> {
        if self.kind != expected {
            return Err(SearchError::Kind { path: path.to_owned(), expected, found: self.kind });
        }
        Ok(())
    }

    /// Parses the JSON of a description.
    ///
    /// # Errors
    /// The fault.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if u32::try_from(schema).is_ok_and(|schema| READABLE_SCHEMAS.contains(&schema)) => {
                serde_json::from_value(value).map_err(|error| format!("the description is invalid: {error}"))
            }
            schema => {
                let latest = READABLE_SCHEMAS.end();
                Err(format!("the file has format version {schema:?}, and at most version {latest} is expected"))
            }
        }
    }

    /// Whether names and stamps have the format of this version.
    pub(super) fn is_current(&self) -> bool {
        self.schema == SCHEMA
    }

    /// The description as JSON. Serialising texts and numbers cannot fail.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The first field that differs, with both values: embeddings cannot be copied from one index to the other. None if they
    /// can. The producer, the version of the format and the images of a shard may differ.
    pub fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let (own, other) = (self.fields(), other.fields());
        let names = own.as_object().into_iter().chain(other.as_object()).flat_map(|fields| fields.keys());
        let name = names
            .filter(|name| !matches!(name.as_str(), "producer" | "schema" | "inputs_sha256"))
            .find(|&name| own[name] != other[name])?;
        Some((name.clone(), own[name].to_string(), other[name].to_string()))
    }

    /// Whether embeddings can be copied from one index to the other.
    pub(super) fn has_same_embeddings(&self, other: &Self) -> bool {
        self.difference(other).is_none()
    }

    /// The fields by name.
    fn fields(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// One image or caption of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexItem {
    /// The image's path relative to the folder as [`path_to_text`](laps_files::path_to_text) writes it, or the caption.
    pub name: String,
    /// Size and modification time of the image file. An update of the index does not encode an image again if its stamp is
    /// unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<FileStamp>,
}

/// Size and modification time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StampFields", into = "StampFields")]
pub struct FileStamp {
    /// Size in bytes.
    pub bytes: u64,
    /// Whole seconds from 1970 to the modification, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanoseconds: u32,
}

impl FileStamp {
    /// The stamp of a file; None if the system does not report its modification time.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let (seconds, nanoseconds) = since_1970(metadata.modified().ok()?)?;
        Some(Self { bytes: metadata.len(), seconds, nanoseconds })
    }
}

fn since_1970(time: SystemTime) -> Option<(i64, u32)> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Some((i64::try_from(after.as_secs()).ok()?, after.subsec_nanos())),
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).ok()?;
            Some(match before.subsec_nanos() {
                0 => (seconds, 0),
                nanoseconds => (seconds - 1, 1_000_000_000 - nanoseconds),
            })
        }
    }
}

/// A stamp in a file, as an array.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StampFields {
    /// Format version 1: bytes, and nanoseconds since 1970.
    Nanoseconds(u64, u64),
    /// Bytes, seconds and nanoseconds.
    Seconds(u64, i64, u32),
}

impl From<StampFields> for FileStamp {
    fn from(fields: StampFields) -> Self {
        const NANOSECONDS: u64 = 1_000_000_000;
        match fields {
            StampFields::Nanoseconds(bytes, nanoseconds) => Self {
                bytes,
                // Both quotients are below 2^35.
                seconds: (nanoseconds / NANOSECONDS) as i64,
                nanoseconds: (nanoseconds % NANOSECONDS) as u32,
            },
            StampFields::Seconds(bytes, seconds, nanoseconds) => Self { bytes, seconds, nanoseconds },
        }
    }
}

impl From<FileStamp> for StampFields {
    fn from(FileStamp { bytes, seconds, nanoseconds }: FileStamp) -> Self {
        Self::Seconds(bytes, seconds, nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{FileStamp, IndexItem, since_1970};

    #[test]
    fn times_before_1970_and_after_2554_are_distinct_and_survive() {
        // 2^64 ns after 1970 is in 2554.
        let late = UNIX_EPOCH + Duration::new(20_000_000_000, 7);
        let times: [(SystemTime, (i64, u32)); 5] = [
            (UNIX_EPOCH, (0, 0)),
            (UNIX_EPOCH - Duration::new(0, 1), (-1, 999_999_999)),
            (UNIX_EPOCH - Duration::new(5, 0), (-5, 0)),
            (UNIX_EPOCH - Duration::new(5, 300_000_000), (-6, 700_000_000)),
            (late, (20_000_000_000, 7)),
        ];
        for (time, expected) in times {
            let (seconds, nanoseconds) = since_1970(time).unwrap();
            assert_eq!((seconds, nanoseconds), expected);
            let item = IndexItem { name: "a".to_owned(), stamp: Some(FileStamp { bytes: 3, seconds, nanoseconds }) };
            let text = serde_json::to_string(&item).unwrap();
            assert_eq!(serde_json::from_str::<IndexItem>(&text).unwrap(), item, "{text}");
        }
    }

    #[test]
    fn stamp_of_format_version_1_is_read() {
        let item: IndexItem = serde_json::from_str(r#"{"name":"a","stamp":[3,1700000000123456789]}"#).unwrap();
        assert_eq!(item.stamp, Some(FileStamp { bytes: 3, seconds: 1_700_000_000, nanoseconds: 123_456_789 }));
    }
}
