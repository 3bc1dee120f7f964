//! Downloads: from public services to complete, verified and pinned files.
//!
//! A file is downloaded under a temporary name and a lock, hashed as it arrives, and renamed when it is complete and
//! its hash is right. An interrupted download is resumed by the next call. Servers are not trusted: sizes and hashes
//! come from the manifest or from [`Pins`](crate::store::Pins), redirects stay on the hosts of the service, web pages
//! are read by a small parser of our own, and bodies are not decompressed.
//!
//! The behaviour of the services follows gdown 6.5.1 for Google Drive and `huggingface_hub` for the Hugging Face hub.
//! It was tested against local servers that behave like them, not yet against the services.

pub(crate) mod client;
mod download;
mod drive;
mod error;
mod fetcher;
mod html;
mod hub;
mod images;
mod local_file;
mod models;
mod partial;
#[cfg(test)]
mod properties;
mod range;
pub(crate) mod redirects;
mod retry;
pub(crate) mod services;
pub(crate) mod source;
mod space;
mod url_file;

pub use client::Timeouts;
pub use drive::DriveError;
pub use error::FetchError;
pub use fetcher::{FetchSettings, FetchedFile, Fetcher, Network, Pinning};
pub use hub::HubError;
pub use models::{ReadyCheckpoint, missing_images, missing_texts};
pub use redirects::RedirectPolicy;
pub use retry::RetryPolicy;
pub use services::{Endpoint, Services};
