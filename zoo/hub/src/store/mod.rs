//! The cache of fetched files: where they are stored, what is known about them, and their pins.
//!
//! The cache folder ([`laps_files::cache`]) contains `checkpoints/`, `backbones/` and [`LOCK_FILE`]. A folder or web
//! server of the same layout can serve as a mirror.

mod cache_item;
mod converted;
mod error;
mod pins;
mod prune;
mod remote_file;
mod unpack;
mod verify;

pub use cache_item::{CacheItem, CacheState};
pub use converted::{check_checkpoint, convert_fetched, converted_key};
pub use error::FileStoreError;
pub use pins::{LOCK_FILE, Pin, Pins};
pub use prune::{PrunedFile, prune};
pub use remote_file::{
    FileSource, FileStore, MAX_WEIGHTS_BYTES, RemoteFile, data_set, fetchable_names, image_encoder, text_encoder,
};
pub use unpack::UnpackSummary;
pub(crate) use unpack::unpack;
pub use verify::{FileCheck, FileCheckOutcome, verify};
