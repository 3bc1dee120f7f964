//! Fetches what an entry needs: its checkpoint, pretrained encoders, captions, vocabulary and images.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{FetchError, FetchedFile, Fetcher};
use crate::{
    checkpoint::Checkpoint,
    registry::{DataPaths, Entry},
    store::{
        FileStore, Pin, RemoteFile, check_checkpoint, convert_fetched, converted_key, data_set, image_encoder,
        text_encoder,
    },
};
use laps_data::Split;
use laps_files::{FileLock, Progress};

/// A fetched checkpoint that was checked against its entry and converted to safetensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyCheckpoint {
    /// The safetensors file.
    pub path: PathBuf,
    /// Its pin.
    pub pin: Pin,
}

impl Fetcher {
    /// The published checkpoint of `entry`, fetched and converted if necessary.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`]. A checkpoint that does not fit the entry is [`FetchError::Rejected`], with the
    /// [`CheckpointError`](crate::checkpoint::CheckpointError) as its cause.
    pub fn checkpoint(&self, entry: &Entry, progress: &dyn Progress) -> Result<ReadyCheckpoint, FetchError> {
        let store = &self.settings().store;
        let original = store.checkpoint(entry)?;
        let path = store.root.join(converted_key(&original));
        if let Some(pin) = store.converted_checkpoint(&original)? {
            return Ok(ReadyCheckpoint { path, pin });
        }
        let fetched = self.fetch(&original, |path| check_checkpoint(path, entry), progress)?;
        let waiting = || progress.message(&original.key, "waiting for another process that converts it");
        let lock = FileLock::acquire(&original.path, waiting);
        let _lock = lock.map_err(|source| FetchError::io("lock", &original.path, source))?;
        if let Some(pin) = store.converted_checkpoint(&original)? {
            return Ok(ReadyCheckpoint { path, pin });
        }
        progress.message(&original.key, "checked against the entry; converting");
        let pin = convert_fetched(store, entry, &original, &fetched.pin)?;
        Ok(ReadyCheckpoint { path, pin })
    }

    /// The pretrained encoder `name`.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`]. A file that is not a readable checkpoint is [`FetchError::Rejected`].
    pub fn backbone(&self, name: &str, progress: &dyn Progress) -> Result<FetchedFile, FetchError> {
        let files = self.settings().store.backbone(name)?;
        let is_readable = |path: &Path| Ok(Checkpoint::open(path).map(drop)?);
        self.fetch_any(&files, is_readable, progress)
    }

    /// The pretrained image encoder, if known, and text encoder that training of `entry` starts from.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`].
    pub fn backbones(&self, entry: &Entry, progress: &dyn Progress) -> Result<(Option<PathBuf>, PathBuf), FetchError> {
        let image = image_encoder(&entry.model.image).map(|name| self.backbone(name, progress)).transpose()?;
        let text = self.backbone(text_encoder(&entry.model), progress)?;
        Ok((image.map(|fetched| fetched.file.path), text.file.path))
    }

    /// Fetches the files of [`missing_texts`].
    ///
    /// # Errors
    /// The first error of [`Fetcher::fetch`].
    pub fn texts(
        &self,
        entry: &Entry,
        (root, paths): (&Path, &DataPaths),
        splits: &[&str],
        progress: &dyn Progress,
    ) -> Result<Vec<FetchedFile>, FetchError> {
        let missing = missing_texts(&self.settings().store, entry, (root, paths), splits)?;
        self.fetch_all(&missing, progress).into_iter().collect()
    }
}

/// The missing caption files of `splits` and the missing vocabulary of the built-in entry `entry` at `paths` below
/// `root`. Empty for other entries, and if `root` does not exist.
///
/// # Errors
/// Errors of the built-in manifest.
pub fn missing_texts(
    store: &FileStore,
    entry: &Entry,
    (root, paths): (&Path, &DataPaths),
    splits: &[&str],
) -> Result<Vec<RemoteFile>, FetchError> {
    // Data in another layout may be one file.
    let exists = if entry.data.source.is_native() { root.is_dir() } else { root.exists() };
    let Some(set) = data_set(entry).filter(|_| exists) else { return Ok(Vec::new()) };
    let is_of_splits = |file: &RemoteFile| {
        let name = file.key.rsplit('/').next().unwrap_or_default();
        name == "id_mapping.json"
            || splits.iter().any(|split| name.strip_prefix(split).is_some_and(|end| end.starts_with('_')))
    };
    if !entry.data.source.is_native() {
        // Nothing is written to the folder of the source.
        let vocabulary = store.vocabulary(&entry.model, None)?;
        return Ok(if paths.vocab.exists() || vocabulary.path.exists() { Vec::new() } else { vec![vocabulary] });
    }
    let mut files = store.captions(set, &paths.captions)?;
    files.retain(is_of_splits);
    files.push(store.vocabulary(&entry.model, Some(&paths.vocab))?);
    files.retain(|file| !file.path.exists());
    Ok(files)
}

/// The image archives that `splits` of the built-in entry `entry` use and that are not unpacked at `paths`: the archive
/// is there, or its folder is not. Empty if the images cannot be downloaded, and if `root` does not exist. The caption
/// files must exist.
///
/// # Errors
/// Errors of the caption files and of the built-in manifest.
pub fn missing_images(
    store: &FileStore,
    entry: &Entry,
    (root, paths): (&Path, &DataPaths),
    splits: &[&str],
) -> Result<Vec<RemoteFile>, FetchError> {
    let is_fetched = root.is_dir() && entry.data.source.is_native();
    let Some(set) = data_set(entry).filter(|_| is_fetched) else { return Ok(Vec::new()) };
    let (mut archives, _) = store.archives(set, &paths.images)?;
    archives.retain(|archive| archive.path.is_file() || !archive.path.with_extension("").is_dir());
    if archives.is_empty() {
        return Ok(archives);
    }
    let mut folders = BTreeSet::new();
    for split in splits {
        let split = Split::open(&paths.captions, split)?;
        folders.extend(split.images().iter().filter_map(|image| Some(image.name.split_once('/')?.0.to_owned())));
    }
    let is_used = |archive: &RemoteFile| {
        archive.path.file_stem().is_some_and(|stem| folders.contains(stem.to_string_lossy().as_ref()))
    };
    archives.retain(is_used);
    Ok(archives)
}
