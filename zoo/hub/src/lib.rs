//! The model zoo: what is known about each model, and how its files are found, checked and fetched.
//!
//! * [`registry`] describes the entries: model, data, training recipe, published results, and where checkpoints come
//!   from. It reads built-in entries and YAML files, with errors that point to line and column.
//! * [`checkpoint`] reads safetensors and PyTorch checkpoints without executing them, checks them against a model, and
//!   converts them to safetensors.
//! * [`store`] manages the cache folder: where each file belongs, the lock file `laps-zoo.lock` that pins size and
//!   SHA-256 of everything fetched, conversion, verification and pruning.
//! * [`fetch`] downloads files into the store: resumable, verified, with mirrors, retries and an offline mode.
//! * [`push`] uploads a folder to a repository of the Hugging Face hub.
//!
//! Each module depends on those above it only. Every module has its own error type; [`Error`] wraps all five.
//!
//! A built-in entry and the small checkpoint that is embedded in the program:
//!
//! ```
//! use laps_hub::registry;
//!
//! # fn main() -> Result<(), laps_hub::Error> {
//! let entry = registry::find("shapes_vit")?;
//! assert_eq!(entry.model.embed_size, 64);
//!
//! let checkpoint = registry::embedded_checkpoint(&entry.name).expect("part of the program");
//! assert_eq!(checkpoint.sha256().len(), 64);
//! # Ok(())
//! # }
//! ```
//!
//! The published checkpoint of an entry, from the cache or the network:
//!
//! ```no_run
//! use laps_hub::{
//!     fetch::{FetchSettings, Fetcher, Network, Pinning},
//!     registry,
//! };
//!
//! # fn main() -> Result<(), laps_hub::Error> {
//! let settings = FetchSettings::from_environment(Network::Online, Pinning::OnFirstFetch)?;
//! let ready = Fetcher::new(settings).checkpoint(&registry::find("f30k_vit")?, &())?;
//! println!("{}", ready.path.display());
//! # Ok(())
//! # }
//! ```

pub mod checkpoint;
mod error;
pub mod fetch;
pub mod push;
pub mod registry;
pub mod store;

pub use error::{Error, Result};
