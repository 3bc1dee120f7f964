//! Files: atomic output, locks, hashes, checks of names from outside, and the cache folder.

pub mod cache;
mod digest;
mod error;
mod lock;
mod names;
mod safetensors;
mod write;

pub use digest::{BLOCK, Digests, Expected, Found, Mismatch, Verified, digest_file, hex, is_hex};
pub use error::{Error, Result};
pub use lock::FileLock;
pub use names::{inside, is_file_name};
pub use safetensors::safetensors_header;
pub use write::{beside, put, replace};
