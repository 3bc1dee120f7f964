//! Sources of captions and images in the layouts of other projects.
//!
//! [`import`] reads a [`Source`] and writes the caption files that [`Split::open`](crate::Split::open) reads. Images that lie
//! in a folder stay there, or are linked or copied; images inside of Parquet and tar files are unpacked. The source is never
//! modified.
//!
//! ```
//! use laps_data::{Split, sources::{ImageTransfer, Source, SourceKind, import}};
//!
//! # let folder = tempfile::tempdir()?;
//! let pictures = folder.path().join("pictures");
//! std::fs::create_dir(&pictures)?;
//! std::fs::write(pictures.join("dog.jpg"), b"...")?;
//! std::fs::write(pictures.join("dog.txt"), "A dog runs .\nA brown dog .\n")?;
//!
//! let source = Source::below(SourceKind::Folder, &pictures, &[], None, None)?;
//! let out = folder.path().join("out");
//! import(&source, &out, ImageTransfer::Keep)?;
//! let split = Split::open(&out.join("captions"), "test")?;
//! assert_eq!(split.captions(), ["A dog runs .", "A brown dog ."]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod coco;
mod dci;
mod docci;
mod files;
mod folder;
mod import;
mod kaggle;
mod karpathy;
mod known;
mod parquet;
mod parquet_pages;
mod sharegpt4v;
mod split_list;
mod urban1k;
mod webdataset;

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::DataError;

pub use import::{ImageTransfer, Imported, import, unpack_images};
pub use known::{KnownIds, same_size, traps};

/// Largest image file inside of a Parquet or tar file.
const MAX_IMAGE_BYTES: u64 = 1 << 28;
/// Largest text file inside of a tar file; in a row of a Parquet file, most bytes of a text and of all captions.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// The layout of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// `<split>_ids.txt`, `<split>_caps.txt` and `id_mapping.json` in a folder.
    #[default]
    Laps,
    /// `dataset_flickr30k.json` or `dataset_coco.json` of Karpathy and Fei-Fei.
    Karpathy,
    /// `captions_*.json` of COCO.
    Coco,
    /// Parquet files as on the Hugging Face hub.
    Parquet,
    /// `results.csv` of Flickr30K on Kaggle.
    Kaggle,
    /// Tar files of the WebDataset format.
    Webdataset,
    /// A folder of images, each with a text file of captions.
    Folder,
    /// The tree of the authors' README: caption files in `data/f30k` or `data/coco`.
    Authors,
    /// `docci_descriptions.jsonlines` of DOCCI.
    Docci,
    /// The folders `annotations` and `photos` of DCI.
    Dci,
    /// The folders `image` and `caption` of Urban1k.
    Urban1k,
    /// `share-captioner_coco_lcs_sam_1246k_1107.json` of ShareGPT4V.
    Sharegpt4v,
}

impl SourceKind {
    /// All layouts.
    pub const ALL: [Self; 12] = [
        Self::Laps,
        Self::Karpathy,
        Self::Coco,
        Self::Parquet,
        Self::Kaggle,
        Self::Webdataset,
        Self::Folder,
        Self::Authors,
        Self::Docci,
        Self::Dci,
        Self::Urban1k,
        Self::Sharegpt4v,
    ];

    /// The name in entry files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Laps => "laps",
            Self::Karpathy => "karpathy",
            Self::Coco => "coco",
            Self::Parquet => "parquet",
            Self::Kaggle => "kaggle",
            Self::Webdataset => "webdataset",
            Self::Folder => "folder",
            Self::Authors => "authors",
            Self::Docci => "docci",
            Self::Dci => "dci",
            Self::Urban1k => "urban1k",
            Self::Sharegpt4v => "sharegpt4v",
        }
    }

    /// Whether the caption files are those of [`Split::open`](crate::Split::open), so that nothing has to be imported.
    pub fn is_native(self) -> bool {
        matches!(self, Self::Laps | Self::Authors)
    }

    /// Patterns of the files in a folder of this layout; those of the first pattern that has any are used.
    fn patterns(self) -> &'static [&'static str] {
        match self {
            Self::Karpathy => &["dataset*.json", "*.json"],
            Self::Coco => &["captions_*.json", "annotations/captions_*.json"],
            Self::Parquet => &["*.parquet", "data/*.parquet", "**/*.parquet"],
            Self::Kaggle => &["results.csv", "flickr30k_images/results.csv", "**/results.csv"],
            Self::Webdataset => &["*.tar", "**/*.tar"],
            Self::Docci => &["docci_descriptions.jsonlines"],
            Self::Dci => &["annotations/*.json", "densely_captioned_images/annotations/*.json"],
            Self::Urban1k => &["caption/*.txt", "Urban1k/caption/*.txt"],
            Self::Sharegpt4v => &["share-captioner_coco_lcs_sam_1246k_1107.json", "*.json"],
            Self::Laps | Self::Folder | Self::Authors => &[],
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SourceKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("expected one of {}", names()))
    }
}

/// Names that the splits of a source get.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SplitNames {
    /// For `train` and `restval`.
    pub train: String,
    /// For `val`, `valid`, `validation` and `dev`.
    pub dev: String,
    /// For `test`, and for items of which nothing says the split.
    pub test: String,
}

impl Default for SplitNames {
    fn default() -> Self {
        Self { train: "train".to_owned(), dev: "dev".to_owned(), test: "test".to_owned() }
    }
}

impl SplitNames {
    /// The name of the split that a source calls `name`; `None` if it is no known word.
    fn known(&self, name: &str) -> Option<&str> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "restval" => Some(&self.train),
            "val" | "valid" | "validation" | "dev" => Some(&self.dev),
            "test" => Some(&self.test),
            _ => None,
        }
    }

    /// The split that the name of a file says: a known word at its start or end, as in `test-00000-of-00009.parquet` and
    /// `captions_val2014.json`.
    fn of_file(&self, path: &Path) -> Option<&str> {
        let stem = path.file_stem()?.to_string_lossy();
        let mut words = stem.split(|letter: char| !letter.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        words.find_map(|word| self.known(word))
    }
}

/// A data set in any layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The layout.
    pub kind: SourceKind,
    /// Its files, at least one; for [`SourceKind::Folder`] the folder.
    pub files: Vec<PathBuf>,
    /// The folder that image names are relative to. Not used by images inside of Parquet and tar files.
    pub images: PathBuf,
    /// A list of splits, which says split, order and id of images: Karpathy's JSON, or a folder of `<split>.txt` with one
    /// id or file name per line. Images that it does not name are left out.
    pub splits: Option<PathBuf>,
    /// Names that the splits get.
    pub names: SplitNames,
    /// Captions of an image that are used; further ones are left out and counted.
    pub max_captions: NonZeroUsize,
    /// Whether captions are read.
    captions: CaptionUse,
}

/// Whether the captions of a source are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CaptionUse {
    /// Images without captions are an error.
    Required,
    /// Only images are read.
    Ignored,
}

/// Captions of an image that published protocols use.
pub const DEFAULT_MAX_CAPTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4);

impl Source {
    /// A source below the folder `root`, or the one file `root`. `files` are paths or globs relative to it; without any, those of the layout's usual
    /// names. `images` is the folder of images; without one, a usual one.
    ///
    /// # Errors
    /// [`DataError::SourceFiles`] if there is no such file.
    pub fn below(
        kind: SourceKind,
        root: &Path,
        files: &[String],
        images: Option<&Path>,
        splits: Option<&Path>,
    ) -> Result<Self, DataError> {
        let (root, files) = match files.is_empty() {
            true if root.is_file() => (root.parent().unwrap_or(Path::new("")), vec![root.to_owned()]),
            true if kind == SourceKind::Folder => (root, vec![root.to_owned()]),
            _ => (root, files::find(kind, root, files)?),
        };
        let images = match images {
            Some(images) => root.join(images),
            None => files::image_folder(kind, root, &files),
        };
        let splits = splits.map(|splits| root.join(splits));
        let (names, max_captions, captions) = (SplitNames::default(), DEFAULT_MAX_CAPTIONS, CaptionUse::Required);
        Ok(Self { kind, files, images, splits, names, max_captions, captions })
    }

    /// The image folder of the authors' tree next to the folder of its caption files: `flickr30k-images` or `SET-images`.
    pub fn authors_images(captions: &Path) -> PathBuf {
        let set = captions.file_name().unwrap_or_default().to_string_lossy();
        let folders = [format!("{set}-images"), "flickr30k-images".to_owned(), "images".to_owned()];
        let mut folders = folders.iter().map(|folder| captions.with_file_name(folder));
        folders.find(|folder| folder.is_dir()).unwrap_or_else(|| captions.with_file_name("images"))
    }

    /// SHA-256 of everything that determines the imported files: the options, and path, size and time of modification of
    /// each file.
    ///
    /// # Errors
    /// [`DataError::Read`] if a file cannot be found.
    pub fn identity(&self) -> Result<String, DataError> {
        files::identity(self)
    }

    /// Calls `sink` for each image in the order of the source. Returns the files, relative to their folder, that are left
    /// out because their names are not UTF-8.
    fn read(&self, sink: &mut ItemSink<'_>) -> Result<Vec<PathBuf>, DataError> {
        match self.kind {
            SourceKind::Folder => return folder::read(self, sink),
            SourceKind::Urban1k => return urban1k::read(self, sink),
            SourceKind::Laps | SourceKind::Authors => {}
            SourceKind::Karpathy => karpathy::read(self, sink)?,
            SourceKind::Coco => coco::read(self, sink)?,
            SourceKind::Parquet => parquet::read(self, sink)?,
            SourceKind::Kaggle => kaggle::read(self, sink)?,
            SourceKind::Webdataset => webdataset::read(self, sink)?,
            SourceKind::Docci => docci::read(self, sink)?,
            SourceKind::Dci => dci::read(self, sink)?,
            SourceKind::Sharegpt4v => sharegpt4v::read(self, sink)?,
        }
        Ok(Vec::new())
    }
}

/// Receives the images of a source.
type ItemSink<'a> = dyn FnMut(SourceItem) -> Result<(), DataError> + 'a;

/// An image of a source with captions.
struct SourceItem {
    /// The file of the source that it comes from, and where in it.
    origin: (PathBuf, String),
    /// Its split; `None` if nothing says it.
    split: Option<String>,
    id: String,
    /// Path relative to the image folder.
    name: String,
    captions: Vec<String>,
    /// The image file, if it is not in the image folder.
    bytes: Option<Vec<u8>>,
}

/// The error of a source file with unusable content.
fn unusable(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::Content { path: path.to_owned(), expected: expected.into(), found: found.into() }
}

/// A JSON value that is an id: a number or a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum JsonId {
    Number(u64),
    Text(String),
}

impl fmt::Display for JsonId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// Reads a JSON file.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path, expected: &str) -> Result<T, DataError> {
    let text = laps_files::decode_text(fs_err::read(path)?).map_err(|error| DataError::not_utf8(path, error))?;
    serde_json::from_str(&text).map_err(|error| unusable(path, expected, error.to_string()))
}
