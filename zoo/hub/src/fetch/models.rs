//! What an entry needs: its checkpoint ready to be used, encoders to begin with, captions and vocabulary.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{FetchError, Fetched, Fetcher, Watch};
use crate::{
    Result,
    checkpoint::Checkpoint,
    registry::{DataPaths, Entry},
    store::{Item, Pin, Store, TEXT_ENCODER, check_checkpoint, data_set, image_encoder, make_ready, ready_key},
};
use laps_data::Split;

/// A checkpoint that is fetched, checked against its entry, and in safetensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The safetensors file.
    pub path: PathBuf,
    /// Its pin.
    pub pin: Pin,
    /// What was fetched.
    pub original: Item,
    /// Whether it had been ready before.
    pub was_here: bool,
}

impl Fetcher {
    /// The published checkpoint of `entry`, fetched where it is not here, and made ready.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`]; [`crate::checkpoint::CheckpointError`] as the cause of [`FetchError::Rejected`] for one
    /// that does not fit the entry.
    pub fn checkpoint(&self, entry: &Entry, watch: &dyn Watch) -> Result<Ready> {
        let store = &self.settings().store;
        let original = store.checkpoint(entry)?;
        let path = store.root.join(ready_key(&original));
        if let Some(pin) = store.ready(&original)? {
            return Ok(Ready { path, pin, original, was_here: true });
        }
        let fetched = self.fetch(&original, |path| check_checkpoint(path, entry), watch)?;
        watch.note(&original.key, "checked against the entry; converting");
        let pin = make_ready(store, entry, &original, &fetched.pin)?;
        Ok(Ready { path, pin, original, was_here: false })
    }

    /// The pretrained encoder `name`; it has to be a checkpoint that can be read.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`].
    pub fn backbone(&self, name: &str, watch: &dyn Watch) -> Result<Fetched> {
        let items = self.settings().store.backbone(name)?;
        let readable = |path: &Path| Ok(Checkpoint::open(path).map(drop)?);
        Ok(self.fetch_any(&items, readable, watch)?)
    }

    /// The pretrained encoders that training `entry` begins with: of images where it is known which one, and of texts.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`].
    pub fn backbones(&self, entry: &Entry, watch: &dyn Watch) -> Result<(Option<PathBuf>, PathBuf)> {
        let image = image_encoder(&entry.model.image).map(|name| self.backbone(name, watch)).transpose()?;
        let text = self.backbone(TEXT_ENCODER, watch)?;
        Ok((image.map(|fetched| fetched.item.path), text.item.path))
    }

    /// Caption files of `splits` and vocabulary of the built-in entry `entry` that are missing at `paths`, below `root`.
    /// Nothing is fetched for an entry of another kind, nor into a folder that is not there.
    ///
    /// # Errors
    /// The first of [`Fetcher::fetch`].
    pub fn texts(
        &self,
        entry: &Entry,
        (root, paths): (&Path, &DataPaths),
        splits: &[&str],
        watch: &dyn Watch,
    ) -> Result<Vec<Fetched>> {
        let missing = missing_texts(&self.settings().store, entry, (root, paths), splits)?;
        all(self.fetch_all(&missing, watch))
    }
}

/// What [`Fetcher::texts`] would fetch.
///
/// # Errors
/// Those of the built-in manifest.
pub fn missing_texts(
    store: &Store,
    entry: &Entry,
    (root, paths): (&Path, &DataPaths),
    splits: &[&str],
) -> Result<Vec<Item>> {
    let Some(set) = data_set(entry).filter(|_| root.is_dir()) else { return Ok(Vec::new()) };
    let of_split = |item: &Item| {
        let name = item.key.rsplit('/').next().unwrap_or_default();
        name == "id_mapping.json"
            || splits.iter().any(|split| name.strip_prefix(split).is_some_and(|end| end.starts_with('_')))
    };
    let mut items = store.captions(set, &paths.captions)?;
    items.retain(of_split);
    items.push(store.vocabulary(Some(&paths.vocab))?);
    items.retain(|item| !item.path.exists());
    Ok(items)
}

/// The archives of images that `splits` of the built-in entry `entry` name files of, and that are not unpacked at `paths`:
/// their folder is not there, or they lie beside it still. None where images can not be fetched, and none into a folder
/// `root` that is not there. The caption files have to be there.
///
/// # Errors
/// Those of the caption files and of the built-in manifest.
pub fn missing_images(
    store: &Store,
    entry: &Entry,
    (root, paths): (&Path, &DataPaths),
    splits: &[&str],
) -> Result<Vec<Item>> {
    let Some(set) = data_set(entry).filter(|_| root.is_dir()) else { return Ok(Vec::new()) };
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
    let is_named =
        |archive: &Item| archive.path.file_stem().is_some_and(|stem| folders.contains(stem.to_string_lossy().as_ref()));
    archives.retain(is_named);
    Ok(archives)
}

/// All of them, or the first error.
pub fn all(outcomes: Vec<Result<Fetched, FetchError>>) -> Result<Vec<Fetched>> {
    Ok(outcomes.into_iter().collect::<Result<_, _>>()?)
}
