//! What can go wrong here.

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {}

impl CheckpointError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match *self {}
    }
}
