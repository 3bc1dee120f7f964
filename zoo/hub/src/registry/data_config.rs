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
    /// The paths below `root`.
    pub(super) fn below(&self, root: &Path) -> DataPaths {
        DataPaths {
            captions: root.join(&self.captions),
            images: root.join(&self.images),
            vocab: root.join(&self.vocab),
        }
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
