//! Captions, tokens and images compared with Pillow and the reference tokenizer, and the errors for bad data sets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod captions;
mod corpus;
mod images;
mod loading;
mod sources;
mod tar_header;
mod tokens;

use std::path::{Path, PathBuf};

/// The folder of real photos and captions, which is not part of the repository. Tests are skipped without it.
fn real() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real");
    if !folder.is_dir() {
        println!("skipped: there is no `{}`", folder.display());
        return None;
    }
    Some(folder)
}
