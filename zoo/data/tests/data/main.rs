//! Captions, tokens and images against Pillow and the authors' tokenizer, and what bad data sets are answered with.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can not go on fails")]

mod captions;
mod images;
mod loading;
mod tokens;

use std::path::{Path, PathBuf};

/// The folder of real photos and captions, which is not part of the repository; without it a test says so and passes.
fn real() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real");
    if !folder.is_dir() {
        println!("skipped: there is no `{}`", folder.display());
        return None;
    }
    Some(folder)
}
