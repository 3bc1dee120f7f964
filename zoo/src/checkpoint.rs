//! The checkpoint of an entry.

use std::{path::Path, thread};

use laps_hub::{checkpoint::Checkpoint, registry::Entry};

use crate::{Error, Result, embedded};

/// Opens the checkpoint `given`, or the embedded one of the entry, and checks that it fits the entry's model. Also returns
/// the note on an embedded checkpoint. The hash of the file is computed meanwhile, for [`Checkpoint::sha256`].
///
/// # Errors
/// [`Error::NoCheckpoint`] without either, and a checkpoint that does not fit.
pub fn open_checkpoint(entry: &Entry, given: Option<&Path>) -> Result<(Checkpoint, Option<String>)> {
    let (checkpoint, note) = match given {
        Some(path) => (Checkpoint::open(path)?, None),
        None => embedded::checkpoint(entry)?,
    };
    let same = checkpoint.clone();
    let checkpoint = thread::scope(|scope| {
        // Clones share the hash. If it fails here, it fails again when the hash is needed.
        scope.spawn(|| same.sha256());
        checkpoint.for_model(&entry.model)
    })?;
    Ok((checkpoint, note))
}

impl Error {
    /// The error for an entry without a checkpoint, with where to get one.
    pub fn no_checkpoint(entry: &Entry) -> Self {
        let hint = match entry.checkpoint_source() {
            Ok(Some(source)) => match source.url() {
                Some(url) => format!("download `{}` from {url} and pass its path", source.file),
                None => format!("pass the path of `{}`", source.file),
            },
            _ => "this entry has no published checkpoint: pass the path of your own".to_owned(),
        };
        Self::NoCheckpoint { entry: entry.name.clone(), hint }
    }
}
