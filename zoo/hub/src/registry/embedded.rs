//! Checkpoints that are part of the program.

use super::sha256;

/// A checkpoint in safetensors form.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedCheckpoint {
    /// The file.
    pub bytes: &'static [u8],
    /// What it is, for the tables.
    pub note: &'static str,
}

impl EmbeddedCheckpoint {
    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(self.bytes)
    }
}

const TRAINED: &str = "the embedded checkpoint is what the entry's own recipe gives on the drawn split `train`: the weights \
    after its last epoch";

macro_rules! bytes {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/", $name, ".safetensors"))
    };
}

/// The checkpoint that is embedded for the built-in entry `name`, if there is one.
pub fn embedded_checkpoint(name: &str) -> Option<EmbeddedCheckpoint> {
    let bytes: &'static [u8] = match name {
        "shapes_vit" => bytes!("shapes_vit"),
        "shapes_swin" => bytes!("shapes_swin"),
        _ => return None,
    };
    Some(EmbeddedCheckpoint { bytes, note: TRAINED })
}
