//! Checkpoints that are built into the program.

use super::sha256;

/// A built-in checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedCheckpoint {
    /// The safetensors file.
    pub bytes: &'static [u8],
    /// Its provenance, for tables.
    pub note: &'static str,
}

impl EmbeddedCheckpoint {
    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(self.bytes)
    }
}

const TRAINED: &str = "the embedded checkpoint has the weights after the last epoch of the entry's own recipe on the drawn \
    split `train`";

macro_rules! bytes {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/", $name, ".safetensors"))
    };
}

/// The embedded checkpoint of the built-in entry `name`, if there is one.
pub fn embedded_checkpoint(name: &str) -> Option<EmbeddedCheckpoint> {
    let bytes: &'static [u8] = match name {
        "shapes_vit" => bytes!("shapes_vit"),
        "shapes_swin" => bytes!("shapes_swin"),
        _ => return None,
    };
    Some(EmbeddedCheckpoint { bytes, note: TRAINED })
}
