//! What can be fetched: each file with its place, its sources in order and what is known of it.

use std::path::{Path, PathBuf};

use super::{PINS, StoreError};
use crate::registry::{self, Entry, Manifest};
use laps_files::Expected;
use laps_files::cache;
use laps_model::models::config::ImageConfig;

/// A file that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is pinned under, and its path below a mirror: `checkpoints/f30k_vit/model_best.pth`.
    pub key: String,
    /// Where it is put.
    pub path: PathBuf,
    /// What the manifest knows of it.
    pub expected: Expected,
    /// Where it comes from.
    pub source: Source,
    /// Further addresses of the same file, in the order of trying.
    pub mirrors: Vec<String>,
    /// Its licence, where one is stated.
    pub licence: Option<String>,
    /// Largest size in bytes that is taken from a server.
    pub limit: u64,
}

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file in a public Google Drive folder.
    Drive {
        /// Identifier of the folder.
        folder: String,
        /// Name of the file in it.
        file: String,
    },
    /// A file of a repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repository: String,
        /// A commit or a branch.
        revision: String,
        /// Name of the file in it.
        file: String,
    },
    /// A file of a commit on GitHub.
    GitHub {
        /// `owner/name`.
        repository: String,
        /// The commit.
        commit: String,
        /// Path in the repository.
        path: String,
    },
    /// A file on a server of the COCO data set, by its path there.
    Coco(String),
    /// A file at an address, `https://` or `file://`.
    Address(String),
}

/// Checkpoints and encoders: the largest here has 0.8 GB, with the state of its optimizer 2.4.
pub const LARGEST_WEIGHTS: u64 = 8 << 30;

/// Lists of captions, ids and words: the largest has some 30 MB.
pub const LARGEST_TEXT: u64 = 256 << 20;

/// Archives of images: 13 GB.
pub const LARGEST_ARCHIVE: u64 = 64 << 30;

/// The cache folder, and the file of pins in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The folder.
    pub root: PathBuf,
    /// The file of pins.
    pub pins: PathBuf,
}

impl Store {
    /// The one that the environment names, see [`cache`].
    pub fn from_environment() -> Result<Self, StoreError> {
        cache::place().map(Self::at).ok_or(StoreError::NoCache)
    }

    /// The store in the folder `root`.
    pub fn at(root: PathBuf) -> Self {
        let pins = root.join(PINS);
        Self { root, pins }
    }

    /// The published checkpoint of `entry`.
    ///
    /// # Errors
    /// [`StoreError::Unpublished`].
    pub fn checkpoint(&self, entry: &Entry) -> Result<Item, crate::Error> {
        let unpublished = || StoreError::Unpublished { name: entry.name.clone() };
        let (name, known) = entry.checkpoint.as_ref().zip(entry.checkpoint_source()?).ok_or_else(unpublished)?;
        let folder = known.gdrive_folder.ok_or_else(unpublished)?;
        let key = format!("checkpoints/{name}/{}", known.file);
        Ok(Item {
            path: self.root.join(&key),
            key,
            expected: Expected { bytes: known.bytes, sha256: known.sha256, ..Expected::default() },
            source: Source::Drive { folder, file: known.file },
            mirrors: known.mirrors,
            licence: known.licence,
            limit: LARGEST_WEIGHTS,
        })
    }

    /// The pretrained encoder `name`: its weights, in the order of trying where there are several files of them.
    pub fn backbone(&self, name: &str) -> Result<Vec<Item>, crate::Error> {
        let items = self.backbone_files(name)?;
        Ok(items.into_iter().filter(|item| !item.key.ends_with(".txt")).collect())
    }

    /// The WordPiece vocabulary, to be put at `path` or else into the cache.
    pub fn vocabulary(&self, path: Option<&Path>) -> Result<Item, crate::Error> {
        let items = self.backbone_files(TEXT_ENCODER)?;
        let item = items.into_iter().find(|item| item.key.ends_with("vocab.txt"));
        let mut item = item.ok_or_else(|| unknown("vocab.txt", Vec::new()))?;
        if let Some(path) = path {
            path.clone_into(&mut item.path);
        }
        item.limit = LARGEST_TEXT;
        Ok(item)
    }

    fn backbone_files(&self, name: &str) -> Result<Vec<Item>, crate::Error> {
        let mut known = Manifest::embedded()?.backbones;
        let names = known.keys().cloned().collect();
        let backbone = known.remove(name).ok_or_else(|| unknown(name, names))?;
        let item = |(file, facts): (&String, &registry::ModelFile)| {
            let key = format!("backbones/{name}/{file}");
            Item {
                path: self.root.join(&key),
                key,
                expected: Expected { bytes: facts.bytes, sha256: facts.sha256.clone(), ..Expected::default() },
                source: Source::Hub {
                    repository: backbone.repository.clone(),
                    revision: backbone.revision.clone(),
                    file: file.clone(),
                },
                mirrors: Vec::new(),
                licence: backbone.licence.clone(),
                limit: LARGEST_WEIGHTS,
            }
        };
        Ok(backbone.files.iter().map(item).collect())
    }

    /// The caption and split files of the data set `set`, to be put into `folder`.
    pub fn captions(&self, set: &str, folder: &Path) -> Result<Vec<Item>, crate::Error> {
        let known = Manifest::embedded()?.captions;
        let prefix = format!("data/{set}/");
        let items = known.files.iter().filter_map(|(path, facts)| {
            let name = path.strip_prefix(&prefix)?;
            Some(Item {
                key: format!("captions/{set}/{name}"),
                path: folder.join(name),
                expected: Expected {
                    bytes: facts.bytes,
                    sha256: facts.sha256.clone(),
                    git_blob: Some(facts.git_blob.clone()),
                    md5: None,
                },
                source: Source::GitHub {
                    repository: known.repository.clone(),
                    commit: known.commit.clone(),
                    path: path.clone(),
                },
                mirrors: Vec::new(),
                licence: known.licence.clone(),
                limit: LARGEST_TEXT,
            })
        });
        Ok(items.collect())
    }

    /// The archives of images of the data set `set`, to be put into `folder`; none where they can not be had without an
    /// account, and then how else to get them.
    pub fn archives(&self, set: &str, folder: &Path) -> Result<(Vec<Item>, Vec<String>), crate::Error> {
        let mut items = Vec::new();
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
            items.push(Item {
                key: format!("images/{file}"),
                path: folder.join(&file),
                expected: Expected { md5: archive.md5, ..Expected::default() },
                source: Source::Coco(path),
                mirrors: Vec::new(),
                licence: archive.licence,
                limit: LARGEST_ARCHIVE,
            });
        }
        Ok((items, notes))
    }
}

/// The pretrained text encoder of every entry.
pub const TEXT_ENCODER: &str = "bert-base-uncased";

/// The pretrained image encoder that `image` has the sizes of, where it is known which one was used.
pub fn image_encoder(image: &ImageConfig) -> Option<&'static str> {
    match image {
        ImageConfig::Vit(vit) if (vit.image_size, vit.patch_size, vit.hidden_size) == (224, 16, 768) => {
            Some("vit-base-patch16-224-in21k")
        }
        ImageConfig::Swin(swin) if (swin.image_size, swin.embed_dim, swin.window_size) == (224, 128, 7) => {
            Some("swin-base-patch4-window7-224")
        }
        _ => None,
    }
}

/// The data set that the built-in entry `entry` is of, `f30k` or `coco`; None for drawn scenes and for own entries.
pub fn data_set(entry: &Entry) -> Option<&'static str> {
    match &entry.origin {
        registry::Origin::BuiltIn(name) if name.starts_with("f30k") => Some("f30k"),
        registry::Origin::BuiltIn(name) if name.starts_with("coco") => Some("coco"),
        _ => None,
    }
}

/// An error about a name that is none of those that can be fetched.
pub fn unknown(name: &str, known: Vec<String>) -> StoreError {
    StoreError::Unknown { name: name.to_owned(), known }
}

/// The names that `fetch` takes: entries with a published checkpoint, and pretrained encoders.
pub fn names() -> Result<Vec<String>, crate::Error> {
    let manifest = Manifest::embedded()?;
    let published = manifest.checkpoints.into_iter().filter(|(_, checkpoint)| checkpoint.gdrive_folder.is_some());
    Ok(published.map(|(name, _)| name).chain(manifest.backbones.into_keys()).collect())
}
