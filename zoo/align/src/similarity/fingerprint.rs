//! A hash of the inputs of a similarity matrix.

use sha2::{Digest, Sha256};

/// SHA-256 of everything that determines the bits of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of `parts`: models, data, engine and options. Each part is hashed with its length, so that moving
    /// bytes between parts changes the fingerprint.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"similarity of parts 1\n");
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
