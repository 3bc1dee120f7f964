//! The files that can be fetched, with their location in the cache, their sources and their known hashes.

use std::path::{Path, PathBuf};

use super::{FileStoreError, LOCK_FILE};
use crate::registry::{self, Entry, HubRevision, Manifest};
use laps_files::ExpectedDigest;
use laps_files::cache;
use laps_model::models::config::{ImageConfig, ModelConfig, TextType};

/// A file that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Key of its pin and path below a mirror: `checkpoints/f30k_vit/model_best.pth`.
    pub key: String,
    /// Local path.
    pub path: PathBuf,
    /// Size and hashes of the manifest.
    pub expected: ExpectedDigest,
    /// Where the file is downloaded from.
    pub source: FileSource,
    /// Further URLs of the same file, in the order of trying.
    pub mirrors: Vec<String>,
    /// Licence, if stated.
    pub licence: Option<String>,
    /// Maximum size in bytes accepted from a server.
    pub max_bytes: u64,
}

/// Where a file is downloaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSource {
    /// A file in a public Google Drive folder.
    Drive {
        /// Drive id of the folder.
        folder: String,
        /// Name of the file in the folder.
        file: String,
    },
    /// A file of a repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repository: String,
        /// A commit or a branch.
        revision: String,
        /// Path of the file in the repository.
        file: String,
    },
    /// A file of a commit on GitHub.
    GitHub {
        /// `owner/name`.
        repository: String,
        /// The commit.
        commit: String,
        /// Path of the file in the repository.
        path: String,
    },
    /// The path of a file on the server of the COCO data set.
    Coco(String),
    /// The path of a file on the server of PyPI's files.
    Pypi(String),
    /// A URL, `https://` or `file://`.
    Address(String),
}

/// Maximum size of a checkpoint. The largest known one has 0.8 GB, or 2.4 GB with optimizer state.
pub const MAX_WEIGHTS_BYTES: u64 = 8 << 30;

/// Maximum size of a caption file, a vocabulary or a file of judgements. The largest known ones have about 70 MB.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Name of the package of judgements in the manifest.
const JUDGEMENTS: &str = "eccv_caption";

/// Maximum size of an image archive. The largest known one has 13 GB.
const MAX_ARCHIVE_BYTES: u64 = 64 << 30;

/// The cache folder and its lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStore {
    /// The cache folder.
    pub root: PathBuf,
    /// The lock file.
    pub pins: PathBuf,
}

impl FileStore {
    /// The store of the environment, see [`cache`].
    ///
    /// # Errors
    /// [`FileStoreError::NoCache`].
    pub fn from_environment() -> Result<Self, FileStoreError> {
        cache::path().map(Self::at).ok_or(FileStoreError::NoCache)
    }

    /// The store in the folder `root`.
    pub fn at(root: PathBuf) -> Self {
        let pins = root.join(LOCK_FILE);
        Self { root, pins }
    }

    /// The published checkpoint of `entry`.
    ///
    /// # Errors
    /// [`FileStoreError::Unpublished`], and errors of the built-in manifest.
    pub fn checkpoint(&self, entry: &Entry) -> Result<RemoteFile, FileStoreError> {
        let unpublished = || FileStoreError::Unpublished { name: entry.name.clone() };
        let (name, known) = entry.checkpoint.as_ref().zip(entry.checkpoint_source()?).ok_or_else(unpublished)?;
        let file = known.file.clone();
        let source = match (known.gdrive_folder, known.hub) {
            (Some(folder), _) => FileSource::Drive { folder, file },
            (None, Some(HubRevision { repository, revision })) => FileSource::Hub { repository, revision, file },
            (None, None) => return Err(unpublished()),
        };
        let key = format!("checkpoints/{name}/{}", known.file);
        Ok(RemoteFile {
            path: self.root.join(&key),
            key,
            expected: ExpectedDigest { bytes: known.bytes, sha256: known.sha256, ..ExpectedDigest::default() },
            source,
            mirrors: known.mirrors,
            licence: known.licence,
            max_bytes: MAX_WEIGHTS_BYTES,
        })
    }

    /// The weights of the pretrained encoder `name`, in several formats in the order of trying.
    ///
    /// # Errors
    /// [`FileStoreError::UnknownName`], and errors of the built-in manifest.
    pub fn backbone(&self, name: &str) -> Result<Vec<RemoteFile>, FileStoreError> {
        let files = self.backbone_files(name)?;
        Ok(files.into_iter().filter(|file| !is_vocabulary(file)).collect())
    }

    /// The vocabulary of a model, stored at `path` or in the cache.
    ///
    /// # Errors
    /// Errors of the built-in manifest.
    pub fn vocabulary(&self, model: &ModelConfig, path: Option<&Path>) -> Result<RemoteFile, FileStoreError> {
        let name = text_encoder(model);
        let file = self.backbone_files(name)?.into_iter().find(is_vocabulary);
        let mut file = file.ok_or_else(|| FileStoreError::unknown_name(name, Vec::new()))?;
        if let Some(path) = path {
            path.clone_into(&mut file.path);
        }
        file.max_bytes = MAX_TEXT_BYTES;
        Ok(file)
    }

    fn backbone_files(&self, name: &str) -> Result<Vec<RemoteFile>, FileStoreError> {
        let mut known = Manifest::embedded()?.backbones;
        let names = known.keys().cloned().collect();
        let backbone = known.remove(name).ok_or_else(|| FileStoreError::unknown_name(name, names))?;
        let remote_file = |(file, facts): (&String, &registry::ModelFile)| {
            let key = format!("backbones/{name}/{file}");
            RemoteFile {
                path: self.root.join(&key),
                key,
                expected: expected(facts),
                source: FileSource::Hub {
                    repository: backbone.repository.clone(),
                    revision: backbone.revision.clone(),
                    file: file.clone(),
                },
                mirrors: Vec::new(),
                licence: backbone.licence.clone(),
                max_bytes: MAX_WEIGHTS_BYTES,
            }
        };
        Ok(backbone.files.iter().map(remote_file).collect())
    }

    /// The caption and split files of the data set `set`, stored in `folder`.
    ///
    /// # Errors
    /// Errors of the built-in manifest.
    pub fn captions(&self, set: &str, folder: &Path) -> Result<Vec<RemoteFile>, FileStoreError> {
        let known = Manifest::embedded()?.captions;
        let prefix = format!("data/{set}/");
        let files = known.files.iter().filter_map(|(path, facts)| {
            let name = path.strip_prefix(&prefix)?;
            Some(RemoteFile {
                key: format!("captions/{set}/{name}"),
                path: folder.join(name),
                expected: ExpectedDigest {
                    bytes: facts.bytes,
                    sha256: facts.sha256.clone(),
                    git_blob: Some(facts.git_blob.clone()),
                    md5: None,
                },
                source: FileSource::GitHub {
                    repository: known.repository.clone(),
                    commit: known.commit.clone(),
                    path: path.clone(),
                },
                mirrors: Vec::new(),
                licence: known.licence.clone(),
                max_bytes: MAX_TEXT_BYTES,
            })
        });
        Ok(files.collect())
    }

    /// The human judgements of the COCO test split, ECCV Caption and CxC: one file, stored in the cache.
    ///
    /// # Errors
    /// Errors of the built-in manifest.
    pub fn judgements(&self) -> Result<RemoteFile, FileStoreError> {
        let known = Manifest::embedded()?.judgements.remove(JUDGEMENTS);
        let known = known.ok_or_else(|| FileStoreError::unknown_name(JUDGEMENTS, Vec::new()))?;
        let path =
            known.url.strip_prefix(registry::PYPI_FILES).unwrap_or(&known.url).trim_start_matches('/').to_owned();
        let name = path.rsplit('/').next().unwrap_or(&path);
        let key = judgement_key(name);
        Ok(RemoteFile {
            path: self.root.join(&key),
            key,
            expected: ExpectedDigest {
                bytes: Some(known.bytes),
                sha256: Some(known.sha256),
                ..ExpectedDigest::default()
            },
            source: FileSource::Pypi(path),
            mirrors: Vec::new(),
            licence: Some(known.licence),
            max_bytes: MAX_TEXT_BYTES,
        })
    }

    /// The plausible matches of the COCO test split, by which PMRP is computed: two files in
    /// [`judgement_folder`](Self::judgement_folder).
    ///
    /// # Errors
    /// Errors of the built-in manifest.
    pub fn plausible_matches(&self) -> Result<Vec<RemoteFile>, FileStoreError> {
        let known = Manifest::embedded()?.plausible_matches.remove(JUDGEMENTS);
        let known = known.ok_or_else(|| FileStoreError::unknown_name(JUDGEMENTS, Vec::new()))?;
        let remote_file = |(file, facts): (&String, &registry::ModelFile)| {
            let key = judgement_key(file);
            RemoteFile {
                path: self.root.join(&key),
                key,
                expected: expected(facts),
                source: FileSource::Drive { folder: known.gdrive_folder.clone(), file: file.clone() },
                mirrors: Vec::new(),
                licence: known.licence.clone(),
                max_bytes: MAX_TEXT_BYTES,
            }
        };
        Ok(known.files.iter().map(remote_file).collect())
    }

    /// The folder of all files of judgements in the cache.
    pub fn judgement_folder(&self) -> PathBuf {
        self.root.join("judgements").join(JUDGEMENTS)
    }

    /// The image archives of the data set `set`, stored in `folder`, and notes on images that need an account.
    ///
    /// # Errors
    /// Errors of the built-in manifest.
    pub fn archives(&self, set: &str, folder: &Path) -> Result<(Vec<RemoteFile>, Vec<String>), FileStoreError> {
        let mut files = Vec::new();
        let mut notes = Vec::new();
        for (name, archive) in Manifest::embedded()?.images {
            let of_set = match set {
                "coco" => name.starts_with("coco_"),
                _ => name == "flickr30k",
            };
            if !of_set {
                continue;
            }
            notes.extend(archive.note);
            let Some(url) = archive.url else { continue };
            let path = url.strip_prefix(registry::COCO_IMAGES).unwrap_or(&url).trim_start_matches('/').to_owned();
            let file = path.rsplit('/').next().unwrap_or(&path).to_owned();
            files.push(RemoteFile {
                key: format!("images/{file}"),
                path: folder.join(&file),
                expected: ExpectedDigest { md5: archive.md5, ..ExpectedDigest::default() },
                source: FileSource::Coco(path),
                mirrors: Vec::new(),
                licence: archive.licence,
                max_bytes: MAX_ARCHIVE_BYTES,
            });
        }
        Ok((files, notes))
    }
}

/// Size and hash of a file, as far as the manifest knows them.
fn expected(facts: &registry::ModelFile) -> ExpectedDigest {
    ExpectedDigest { bytes: facts.bytes, sha256: facts.sha256.clone(), ..ExpectedDigest::default() }
}

/// Key of a file of judgements.
fn judgement_key(name: &str) -> String {
    format!("judgements/{JUDGEMENTS}/{name}")
}

/// The pretrained text encoder of all models with BERT.
const BERT: &str = "bert-base-uncased";

/// The pretrained text encoder of a model. CLIP's comes with its image encoder; without a known one it is that of the smallest
/// CLIP, whose tokenizer all share.
pub fn text_encoder(model: &ModelConfig) -> &'static str {
    match model.text.model_type {
        TextType::Bert => BERT,
        TextType::ClipTextModel => image_encoder(&model.image).unwrap_or("clip-vit-base-patch32"),
    }
}

/// Whether a file of a pretrained encoder is its vocabulary.
fn is_vocabulary(file: &RemoteFile) -> bool {
    file.key.ends_with("vocab.txt") || file.key.ends_with("tokenizer.json")
}

/// The pretrained image encoder that matches `image`, if known.
pub fn image_encoder(image: &ImageConfig) -> Option<&'static str> {
    match image {
        ImageConfig::Vit(vit) if (vit.image_size, vit.patch_size, vit.hidden_size) == (224, 16, 768) => {
            Some("vit-base-patch16-224-in21k")
        }
        ImageConfig::Swin(swin) if (swin.image_size, swin.embed_dim, swin.window_size) == (224, 128, 7) => {
            Some("swin-base-patch4-window7-224")
        }
        ImageConfig::ClipVisionModel(clip) => match (clip.image_size, clip.patch_size, clip.hidden_size) {
            (224, 32, 768) => Some("clip-vit-base-patch32"),
            (224, 16, 768) => Some("clip-vit-base-patch16"),
            (224, 14, 1024) => Some("clip-vit-large-patch14"),
            _ => None,
        },
        _ => None,
    }
}

/// The data set of the built-in entry `entry`: `f30k` or `coco`. None for drawn scenes and entry files.
pub fn data_set(entry: &Entry) -> Option<&'static str> {
    let registry::Origin::BuiltIn(_) = entry.origin else { return None };
    ["f30k", "coco"].into_iter().find(|set| entry.data.captions.starts_with(set))
}

/// The names that can be fetched: entries with a published checkpoint, and pretrained encoders.
///
/// # Errors
/// Errors of the built-in manifest.
pub fn fetchable_names() -> Result<Vec<String>, FileStoreError> {
    let manifest = Manifest::embedded()?;
    let published = manifest.checkpoints.into_iter().filter(|(_, checkpoint)| checkpoint.url().is_some());
    Ok(published.map(|(name, _)| name).chain(manifest.backbones.into_keys()).collect())
}
