//! The state of a fetchable file in the cache.

use std::path::PathBuf;

use serde::Serialize;

use super::{FileStore, FileStoreError, Pin, Pins, RemoteFile, converted_key};
use crate::registry::Entry;
use laps_files::with_suffix;
use laps_model::{models, params::Parameter};

/// Bytes of an f32.
const F32_BYTES: u64 = 4;

/// A fetchable file and its state in the cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheItem {
    /// Key of its pin.
    pub key: String,
    /// Whether it is in the cache.
    pub state: CacheState,
    /// Size in bytes, if known.
    pub bytes: Option<u64>,
    /// Size estimated from the parameter count, if `bytes` is not known.
    pub about_bytes: Option<u64>,
    /// Its pin.
    pub pin: Option<Pin>,
    /// Whether the manifest has a hash of it.
    pub known_hash: bool,
    /// Licence, if stated.
    pub licence: Option<String>,
    /// Where it is, or would be.
    pub path: PathBuf,
}

/// Whether a file is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheState {
    /// Ready to be used.
    Ready,
    /// Fetched, but not converted.
    Fetched,
    /// The number of bytes of an interrupted download.
    Partial(u64),
    /// Not fetched.
    Absent,
}

impl CacheState {
    /// A label for tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Fetched => "fetched",
            Self::Partial(_) => "in part",
            Self::Absent => "to fetch",
        }
    }
}

impl FileStore {
    /// The state of the published checkpoint of `entry`. Looks at names and sizes only.
    ///
    /// # Errors
    /// As for [`FileStore::checkpoint`] and [`Pins::open`].
    pub fn cached_checkpoint(&self, entry: &Entry) -> Result<CacheItem, FileStoreError> {
        let file = self.checkpoint(entry)?;
        let pins = Pins::open(&self.pins)?;
        let converted = converted_key(&file);
        let path = self.root.join(&converted);
        let mut item = self.cache_item(&file, &pins);
        if let Some(pin) = pins.get(&converted)
            && size(&path) == Some(pin.bytes)
        {
            item = CacheItem { state: CacheState::Ready, bytes: Some(pin.bytes), pin: Some(pin.clone()), path, ..item };
        } else if item.state == CacheState::Ready {
            item.state = CacheState::Fetched;
        }
        if item.bytes.is_none() {
            let elements: usize = models::parameters(&entry.model)?.iter().map(Parameter::elements).sum();
            item.about_bytes = Some(elements as u64 * F32_BYTES);
        }
        Ok(item)
    }

    /// The state of `file`. Looks at names and sizes only.
    fn cache_item(&self, file: &RemoteFile, pins: &Pins) -> CacheItem {
        let pin = pins.get(&file.key);
        let bytes = pin.map(|pin| pin.bytes).or(file.expected.bytes);
        let state = match (size(&file.path), size(&with_suffix(&file.path, ".part"))) {
            (Some(found), _) if bytes.is_none_or(|bytes| bytes == found) => CacheState::Ready,
            (_, Some(part @ 1..)) => CacheState::Partial(part),
            _ => CacheState::Absent,
        };
        CacheItem {
            key: file.key.clone(),
            state,
            bytes,
            about_bytes: None,
            pin: pin.cloned(),
            known_hash: file.expected.is_hashed(),
            licence: file.licence.clone(),
            path: file.path.clone(),
        }
    }
}

fn size(path: &std::path::Path) -> Option<u64> {
    fs_err::metadata(path).ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
}
