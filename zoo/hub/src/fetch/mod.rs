//! Fetching: from public services to files that are complete, verified and pinned.
//!
//! A file is downloaded under a temporary name, under a lock, hashed as it comes, and gets its name when it is whole and
//! its hash is right; a download that is broken off goes on where it ended. Nothing that a server says is believed further
//! than it can be checked: sizes and hashes come from the manifest or from [`crate::store::Pins`], redirects go to hosts of
//! the same service, pages are read by a small parser of our own, and no body is decompressed.
//!
//! Source of the services' behaviour: for Google Drive that of gdown 6.5.1, for the hub that of huggingface_hub. It was
//! tested against local servers that behave like them, and not yet against the services.

mod address;
mod body;
mod client;
mod download;
pub mod drive;
mod error;
mod fetcher;
mod folder;
mod hub;
mod images;
mod models;
mod part;
mod policy;
mod range;
mod retry;
mod services;
mod space;
mod watch;

pub use client::Timeouts;
pub use drive::DriveError;
pub use error::FetchError;
pub use fetcher::{Fetched, Fetcher, Network, Pinning, Settings};
pub use hub::HubError;
pub use models::{Ready, all, missing_images, missing_texts};
pub use policy::Policy;
pub use range::ContentRange;
pub use retry::Retry;
pub use services::{Base, Services};
pub use space::free_space;
pub use watch::Watch;

use body::Resume;
