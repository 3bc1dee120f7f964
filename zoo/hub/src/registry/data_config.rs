//! Section `data` of an entry.

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{Protocol, RegistryError, document::Document};
use laps_data::{
    DataError,
    scenes::DrawnConfig,
    sources::{Source, SourceKind, SplitNames},
};

/// The file that every caption folder has.
const MAPPING: &str = "id_mapping.json";

/// Section `data`. Paths are relative to the data folder, or to the folder of the entry file without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Layout of captions and images.
    #[serde(default, skip_serializing_if = "is_laps")]
    pub source: SourceKind,
    /// Files of a layout other than `laps`: paths or globs. Default: those of the layout's usual names. For `authors`, the
    /// folder of the caption files.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_more")]
    pub file: Vec<String>,
    /// Folder of `<split>_ids.txt`, `<split>_caps.txt` and `id_mapping.json`; only for the layout `laps`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub captions: PathBuf,
    /// Folder of the images that the captions name. Optional for layouts other than `laps`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub images: PathBuf,
    /// List of splits for a source without them: Karpathy's JSON, or a folder of `<split>.txt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<PathBuf>,
    /// Captions of an image that are used, for layouts other than `laps`; 5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_captions: Option<NonZeroUsize>,
    /// Evaluation encodes captions in the order of the file, this many at a time and padded to the longest of them, as the
    /// released code of D2S-VSE does. Only for a head that reads padding. Default: every caption without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padded_batch: Option<NonZeroUsize>,
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
        if self.source == SourceKind::Authors {
            let captions = self.file.first().map_or_else(|| self.captions.clone(), PathBuf::from);
            let images =
                Some(&self.images).filter(|images| !images.as_os_str().is_empty()).map(|images| root.join(images));
            let images = images.unwrap_or_else(|| Source::authors_images(&root.join(&captions)));
            return DataPaths { captions: root.join(captions), images, vocab: root.join(&self.vocab) };
        }
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

    /// The source below `root`, if it has to be imported: the layouts `laps` and `authors` are read as they are.
    ///
    /// # Errors
    /// [`DataError::SourceFiles`] if a file is not found.
    pub fn source_below(&self, root: &Path) -> Result<Option<Source>, DataError> {
        if self.source.is_native() {
            return Ok(None);
        }
        let images = Some(self.images.as_path()).filter(|images| !images.as_os_str().is_empty());
        let mut source = Source::below(self.source, root, &self.file, images, self.splits.as_deref())?;
        source.names = SplitNames { train: self.train.clone(), dev: self.dev.clone(), test: self.test.clone() };
        source.max_captions = self.max_captions.unwrap_or(source.max_captions);
        Ok(Some(source))
    }

    pub(super) fn check(&self, document: &Document<'_>) -> Result<(), RegistryError> {
        let is_laps = self.source == SourceKind::Laps;
        let empty = Path::new("");
        for (key, path) in [("captions", &self.captions), ("images", &self.images), ("vocab", &self.vocab)] {
            if path == empty && (is_laps || key == "vocab") {
                return Err(document.refuse(&["data", key], "a path", "no path"));
            }
        }
        let others = [
            ("file", !self.file.is_empty()),
            ("splits", self.splits.is_some()),
            ("max_captions", self.max_captions.is_some()),
        ];
        if let Some((key, _)) = others.into_iter().find(|&(_, given)| given && is_laps) {
            let expected = "a `source` that has it, such as `karpathy` or `parquet`";
            return Err(document.refuse(&["data", key], expected, "the layout `laps`"));
        }
        if !is_laps && self.captions != empty {
            let expected = format!("`file`, for the layout `{}`", self.source);
            return Err(document.refuse(&["data", "captions"], &expected, format!("`{}`", self.captions.display())));
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

fn is_laps(source: &SourceKind) -> bool {
    *source == SourceKind::Laps
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a path, a glob, or a list of them")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }

    Ok(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(file) => vec![file],
        OneOrMore::More(files) => files,
    })
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
