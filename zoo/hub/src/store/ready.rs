//! From a fetched checkpoint to one that is ready: checked against its entry, and in safetensors.

use std::path::Path;

use super::{Item, Pin, Pins, Store, now};
use crate::{
    Result,
    checkpoint::{Checkpoint, convert_verified},
    registry::Entry,
    store::StoreError,
};
use laps_files::Expected;
use laps_files::{Verified, digest_file};
use laps_model::models;

/// Sees that the file at `path` is a checkpoint of `entry`: its options, every parameter with its shape, and no value
/// that is not finite.
///
/// # Errors
/// [`crate::checkpoint::CheckpointError`] with everything that is wrong.
pub fn check_checkpoint(path: &Path, entry: &Entry) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    if let Some(options) = checkpoint.options() {
        options.check(&entry.model)?;
    }
    Ok(checkpoint.check(&models::parameters(&entry.model)?)?)
}

/// The key of the safetensors file that the checkpoint `original` becomes: `checkpoints/f30k_vit/model_best.safetensors`.
pub fn ready_key(original: &Item) -> String {
    let stem = original.key.rsplit_once('.').map_or(original.key.as_str(), |(stem, _)| stem);
    format!("{stem}.safetensors")
}

/// Converts the fetched checkpoint `original`, pinned as `pin`, and pins what came out. Returns the pin of that.
///
/// # Errors
/// As for [`convert_verified`] with the model of `entry`.
pub fn make_ready(store: &Store, entry: &Entry, original: &Item, pin: &Pin) -> Result<Pin> {
    let key = ready_key(original);
    let path = store.root.join(&key);
    let (converted, sha256) = convert_verified(&original.path, &path, &pin.sha256, Some(&entry.model))?;
    let ready = Pin {
        url: format!("sha256:{}", converted.source_sha256),
        bytes: converted.bytes,
        sha256,
        fetched: now(),
        verified: Verified::Converted,
        revision: None,
    };
    Pins::record(&store.pins, &key, ready.clone())?;
    Ok(ready)
}

impl Store {
    /// Whether the checkpoint of `original` lies ready in the cache, unchanged since it was made. Reads the whole file.
    ///
    /// # Errors
    /// [`StoreError`] for a file or pins that can not be read.
    pub fn ready(&self, original: &Item) -> Result<Option<Pin>, StoreError> {
        let key = ready_key(original);
        let path = self.root.join(&key);
        let pins = Pins::open(&self.pins)?;
        let Some(pin) = pins.get(&key) else { return Ok(None) };
        // What it was made from has been replaced by decision of the user.
        let made_from = pins.get(&original.key).map(|source| format!("sha256:{}", source.sha256));
        if made_from.is_some_and(|source| source != pin.url) || !path.is_file() {
            return Ok(None);
        }
        let found = digest_file(&path, &Expected::default()).map_err(|source| StoreError::io("read", &path, source))?;
        Ok(pin.expected().check(&found).is_ok().then(|| pin.clone()))
    }
}
