//! Checks fetched checkpoints against their entries and converts them to safetensors.

use std::path::Path;

use super::{FileStore, FileStoreError, Pin, Pins, RemoteFile};
use crate::{
    checkpoint::{Checkpoint, convert_verified},
    registry::Entry,
};
use laps_files::ExpectedDigest;
use laps_files::{Verified, digest_file, utc_now};

/// Checks that the file at `path` is a checkpoint of `entry`: matching options, all parameters with the right shapes,
/// finite values.
///
/// # Errors
/// [`CheckpointError`](crate::checkpoint::CheckpointError) with all problems.
pub fn check_checkpoint(path: &Path, entry: &Entry) -> Result<(), FileStoreError> {
    Checkpoint::open(path)?.for_model(&entry.model)?;
    Ok(())
}

/// The key of the safetensors file converted from the checkpoint `original`:
/// `checkpoints/f30k_vit/model_best.safetensors`.
pub fn converted_key(original: &RemoteFile) -> String {
    let stem = original.key.rsplit_once('.').map_or(original.key.as_str(), |(stem, _)| stem);
    format!("{stem}.safetensors")
}

/// Converts the fetched checkpoint `original` with the pin `pin` to safetensors. Pins the result and returns its pin.
///
/// # Errors
/// As for [`convert_verified`] with the model of `entry`.
pub fn convert_fetched(
    store: &FileStore,
    entry: &Entry,
    original: &RemoteFile,
    pin: &Pin,
) -> Result<Pin, FileStoreError> {
    let key = converted_key(original);
    let path = store.root.join(&key);
    let (converted, sha256) = convert_verified(&original.path, &path, &pin.sha256, Some(&entry.model))?;
    let converted_pin = Pin {
        url: format!("sha256:{}", converted.source_sha256),
        bytes: converted.bytes,
        sha256,
        fetched: utc_now(),
        verified: Verified::Converted,
        revision: None,
    };
    Pins::record(&store.pins, &key, converted_pin.clone())?;
    Ok(converted_pin)
}

impl FileStore {
    /// The pin of the safetensors file converted from `original`, if it is in the cache and unchanged. Reads the whole
    /// file.
    ///
    /// # Errors
    /// [`FileStoreError`] for a file or a lock file that cannot be read.
    pub fn converted_checkpoint(&self, original: &RemoteFile) -> Result<Option<Pin>, FileStoreError> {
        let key = converted_key(original);
        let path = self.root.join(&key);
        let pins = Pins::open(&self.pins)?;
        let Some(pin) = pins.get(&key) else { return Ok(None) };
        // The user has accepted another original since the conversion.
        let original_url = pins.get(&original.key).map(|source| format!("sha256:{}", source.sha256));
        if original_url.is_some_and(|url| url != pin.url) || !path.is_file() {
            return Ok(None);
        }
        let digest = digest_file(&path, &ExpectedDigest::default())
            .map_err(|source| FileStoreError::io("read", &path, source))?;
        Ok(pin.expected().check(&digest).is_ok().then(|| pin.clone()))
    }
}
