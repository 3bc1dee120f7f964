//! Sources of files, with sizes, hashes and licences.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Origin, RegistryError, document::Document};
use laps_data::{SplitSize, sources::KnownIds};

/// The server of the COCO images.
pub const COCO_IMAGES: &str = "http://images.cocodataset.org";

/// The server of the files of PyPI.
pub const PYPI_FILES: &str = "https://files.pythonhosted.org";

/// `checkpoints/manifest.yaml`. A size or hash of None is not published anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Caption and split files.
    pub captions: CaptionFiles,
    /// Sizes of the splits, by data set and split.
    pub splits: BTreeMap<String, BTreeMap<String, SplitSize>>,
    /// Hashes of the ids of splits, by data set and split. See [`Manifest::known_ids`].
    pub split_ids: BTreeMap<String, BTreeMap<String, KnownIds>>,
    /// Images, by data set.
    pub images: BTreeMap<String, ImageArchive>,
    /// Human judgements, by package.
    pub judgements: BTreeMap<String, JudgementSource>,
    /// Plausible matches of images and captions, by the package that computes metrics by them.
    pub plausible_matches: BTreeMap<String, PlausibleMatchSource>,
    /// Checkpoints, by the name that entries refer to.
    pub checkpoints: BTreeMap<String, CheckpointSource>,
    /// Pretrained encoders, by name.
    pub backbones: BTreeMap<String, BackboneSource>,
}

/// Caption and split files, all in one GitHub repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionFiles {
    /// `owner/name`.
    pub repository: String,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// None where none is stated.
    pub licence: Option<String>,
    /// The files, by their path in the repository.
    pub files: BTreeMap<String, CaptionFile>,
}

/// One caption or split file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionFile {
    /// Size.
    pub bytes: Option<u64>,
    /// Git blob id: SHA-1 of `blob <size>\0` and the content.
    pub git_blob: String,
    /// SHA-256.
    pub sha256: Option<String>,
}

/// The images of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageArchive {
    /// A zip file, if it can be downloaded without an account.
    pub url: Option<String>,
    /// MD5 of the zip file.
    pub md5: Option<String>,
    /// None where none is stated.
    pub licence: Option<String>,
    /// How to get the images otherwise.
    pub note: Option<String>,
}

/// Human judgements of retrieval results: one file that is read without unpacking it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgementSource {
    /// The file.
    pub url: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
    /// Licence.
    pub licence: String,
}

/// Plausible matches of images and captions, in a public Google Drive folder.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlausibleMatchSource {
    /// Id of the Drive folder.
    pub gdrive_folder: String,
    /// None where none is stated.
    pub licence: Option<String>,
    /// The files, by name.
    pub files: BTreeMap<String, ModelFile>,
}

/// A trained model: in a public Google Drive folder, on the Hugging Face Hub, or in `checkpoints/`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSource {
    /// Id of the Drive folder.
    pub gdrive_folder: Option<String>,
    /// The repository on the Hugging Face Hub.
    #[serde(default)]
    pub hub: Option<HubRevision>,
    /// Name of the file.
    pub file: String,
    /// Size.
    pub bytes: Option<u64>,
    /// SHA-256.
    pub sha256: Option<String>,
    /// None where none is stated.
    pub licence: Option<String>,
    /// Further URLs of the file, `https://` or `file://`, tried in this order.
    #[serde(default)]
    pub mirrors: Vec<String>,
}

/// A revision of a repository on the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubRevision {
    /// `owner/name`.
    pub repository: String,
    /// A commit of 40 hexadecimal digits, or a branch that the first fetch resolves and pins.
    pub revision: String,
}

/// A pretrained encoder on the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSource {
    /// `owner/name`.
    pub repository: String,
    /// A commit of 40 hexadecimal digits, or a branch that the first fetch resolves and pins.
    pub revision: String,
    /// None where none is stated.
    pub licence: Option<String>,
    /// The files, by name.
    pub files: BTreeMap<String, ModelFile>,
}

/// A file of a [`BackboneSource`] or a [`PlausibleMatchSource`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Size.
    pub bytes: Option<u64>,
    /// SHA-256.
    pub sha256: Option<String>,
}

impl Manifest {
    /// The manifest of this project.
    pub fn embedded() -> Result<Self, RegistryError> {
        const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/manifest.yaml"));
        Document { origin: &Origin::BuiltIn("manifest.yaml"), text: TEXT }.read()
    }

    /// Hashes of the ids of splits, by data set and split: those of `split_ids`, and those of the authors' files
    /// `data/<data set>/<split>_ids.txt`.
    pub fn known_ids(&self) -> BTreeMap<String, BTreeMap<String, KnownIds>> {
        let mut known = self.split_ids.clone();
        for (path, file) in &self.captions.files {
            let Some(("data", rest)) = path.split_once('/') else { continue };
            let Some((set, name)) = rest.split_once('/') else { continue };
            let Some(split) = name.strip_suffix("_ids.txt") else { continue };
            known.entry(set.to_owned()).or_default().entry(split.to_owned()).or_default().id_file_sha256 =
                file.sha256.clone();
        }
        known
    }
}

impl CaptionFiles {
    /// The URL of the file at `path` in the repository.
    pub fn url(&self, path: &str) -> String {
        format!("https://raw.githubusercontent.com/{}/{}/{path}", self.repository, self.commit)
    }
}

impl CheckpointSource {
    /// The URL of the Drive folder or of the repository.
    pub fn url(&self) -> Option<String> {
        let drive =
            self.gdrive_folder.as_ref().map(|folder| format!("https://drive.google.com/drive/folders/{folder}"));
        drive.or_else(|| {
            let HubRevision { repository, revision } = self.hub.as_ref()?;
            Some(format!("https://huggingface.co/{repository}/tree/{revision}"))
        })
    }
}

impl BackboneSource {
    /// The URL of `file`.
    pub fn url(&self, file: &str) -> String {
        format!("https://huggingface.co/{}/resolve/{}/{file}", self.repository, self.revision)
    }

    /// Whether the revision is a commit, which never changes.
    pub fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|digit| digit.is_ascii_hexdigit())
    }
}
