//! Section `data` of an entry.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{Protocol, RegistryError, document::Document};
use laps_data::scenes::DrawnConfig;

/// The file that every caption folder has.
const MAPPING: &str = "id_mapping.json";

/// Section `data`. Paths are relative to the data folder, or to the folder of the entry file without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of `<split>_ids.txt`, `<split>_caps.txt` and `id_mapping.json`.
    pub captions: PathBuf,
    /// Folder of the images that `id_mapping.json` names.
    pub images: PathBuf,
    /// WordPiece vocabulary, one token a line.
    pub vocab: PathBuf,
    /// Whether captions are converted to lower case; false for a cased vocabulary. Default: as the `tokenizer_config.json`
    /// beside the vocabulary says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub do_lower_case: Option<bool>,
    /// Name of the training split.
    #[serde(default = "train")]
    pub train: String,
    /// Name of the validation split.
    #[serde(default = "dev")]
    pub dev: String,
    /// Name of the test split.
    pub test: String,
    /// Evaluation protocols of the test split: one or a list of at least one.
    #[serde(deserialize_with = "protocols")]
    pub protocol: Vec<Protocol>,
    /// Scenes to draw when there is no data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<DrawnConfig>,
}

/// The resolved paths of the data of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPaths {
    /// See [`DataConfig::captions`].
    pub captions: PathBuf,
    /// See [`DataConfig::images`].
    pub images: PathBuf,
    /// See [`DataConfig::vocab`].
    pub vocab: PathBuf,
}

impl DataConfig {
    /// The paths below `root`: those of the entry, or for what is not there those of the tree that the authors' README
    /// describes.
    pub(super) fn below(&self, root: &Path) -> DataPaths {
        let existing = |path: &Path, authors: Option<PathBuf>, exists: fn(&Path) -> bool| {
            let path = root.join(path);
            let other = authors.map(|authors| root.join(authors)).filter(|other| !path.is_dir() && exists(other));
            other.unwrap_or(path)
        };
        let [captions, images] = self.authors_tree();
        DataPaths {
            captions: existing(&self.captions, captions, |folder| folder.join(MAPPING).is_file()),
            images: existing(&self.images, images, Path::is_dir),
            vocab: root.join(&self.vocab),
        }
    }

    /// Captions and images in the authors' tree, for `SET/captions`: the files of captions in `SET` itself, and the images
    /// beside it in `flickr30k-images` or `SET-images`.
    pub(super) fn authors_tree(&self) -> [Option<PathBuf>; 2] {
        let Some(set) = self.captions.parent().filter(|set| set.file_name().is_some()) else { return [None, None] };
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let images = match name(&self.images).as_str() {
            "images" => format!("{}-images", name(set)),
            own => own.to_owned(),
        };
        [Some(set.to_owned()), Some(set.with_file_name(images))]
    }

    pub(super) fn check(&self, document: &Document<'_>) -> Result<(), RegistryError> {
        for (key, path) in [("captions", &self.captions), ("images", &self.images), ("vocab", &self.vocab)] {
            if path.as_os_str().is_empty() {
                return Err(document.refuse(&["data", key], "a path", "an empty text"));
            }
        }
        for (key, split) in [("train", &self.train), ("dev", &self.dev), ("test", &self.test)] {
            if split.is_empty() || split.contains(['/', '\\', '\0']) {
                let expected = "the name of a split, as in `<split>_ids.txt`";
                return Err(document.refuse(&["data", key], expected, format!("`{split}`")));
            }
        }
        let Some(drawn) = &self.drawn else { return Ok(()) };
        for (key, images) in [("train", drawn.train), ("dev", drawn.dev), ("test", drawn.test)] {
            if images == 0 {
                return Err(document.refuse(&["data", "drawn", key], "at least one image", "`0`"));
            }
        }
        Ok(())
    }
}

fn train() -> String {
    "train".to_owned()
}

fn dev() -> String {
    "dev".to_owned()
}

fn protocols<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Protocol>, D::Error> {
    deserializer.deserialize_any(ProtocolsVisitor)
}

struct ProtocolsVisitor;

impl<'de> Visitor<'de> for ProtocolsVisitor {
    type Value = Vec<Protocol>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a protocol, or a list of different protocols")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Protocol::deserialize(serde::de::value::StrDeserializer::new(name)).map(|protocol| vec![protocol])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let protocols = Vec::<Protocol>::deserialize(SeqAccessDeserializer::new(list))?;
        let repeated = protocols.iter().enumerate().any(|(index, protocol)| protocols[..index].contains(protocol));
        if protocols.is_empty() || repeated {
            return Err(A::Error::custom(&self as &dyn serde::de::Expected));
        }
        Ok(protocols)
    }
}
