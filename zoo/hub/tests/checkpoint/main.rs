//! Checkpoints: every container, strict comparison, and damaged and hostile files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed assertion in a test may panic")]

mod containers;
mod convert;
mod damage;
mod folders;
mod hostile;
mod pretrained;
mod real_world;
mod strict;
#[path = "../../../model/tests/support/mod.rs"]
mod support;
mod writer;

use std::path::PathBuf;

use laps_hub::checkpoint::{Checkpoint, CheckpointError, is_ignored};
use laps_model::params::{Init, Parameter};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(name)
}

/// Opens `bytes` as a file.
fn open(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs_err::write(&path, bytes).unwrap();
    Checkpoint::open(path)
}

fn parameter(name: &str, shape: &[usize]) -> Parameter {
    Parameter { name: name.to_owned(), shape: shape.to_vec(), init: Init::Zeros }
}

/// The parameters of a model that fits `checkpoint`.
fn model(checkpoint: &Checkpoint) -> Vec<Parameter> {
    let needed = checkpoint.tensors().filter(|(name, ..)| !is_ignored(name));
    needed.map(|(name, _, shape)| parameter(name, shape)).collect()
}

/// The message with its hint, without the folder of the temporary file.
fn message(error: &CheckpointError) -> String {
    let text = match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    };
    let mut parts = text.split('`');
    let mut cleaned = String::new();
    while let Some(part) = parts.next() {
        cleaned.push_str(part);
        if let Some(quoted) = parts.next() {
            let name = if quoted.starts_with('/') { quoted.rsplit('/').next().unwrap() } else { quoted };
            cleaned.push_str(&format!("`{name}`"));
        }
    }
    cleaned
}
