//! Files that were fetched: where they lie, what is known of them, and what they are pinned as.
//!
//! The cache folder ([`laps_files::cache`]) has `checkpoints/`, `backbones/` and [`PINS`]. A folder of this layout, on a disk
//! or on a web server, serves as a mirror of it.

mod error;
mod items;
mod kept;
mod pins;
mod prune;
mod ready;
mod unpack;
mod verify;

pub use error::StoreError;
pub use items::{
    Item, LARGEST_ARCHIVE, LARGEST_TEXT, LARGEST_WEIGHTS, Source, Store, TEXT_ENCODER, data_set, image_encoder, names,
    unknown,
};
pub use kept::{Kept, State};
pub use pins::{PINS, Pin, Pins, now};
pub use prune::{Pruned, prune};
pub use ready::{check_checkpoint, make_ready, ready_key};
pub use unpack::{Unpacked, unpack};
pub use verify::{Outcome, Verdict, verify};

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
