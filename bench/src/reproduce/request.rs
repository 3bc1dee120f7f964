//! What is asked for.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use zoo::{
    encoder::Device,
    registry::{self, Entry},
};

use crate::{
    Error, Result,
    engine::{self, EngineChoice},
    files,
};

/// What is to be reproduced, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The entry.
    pub entry: Entry,
    /// The checkpoint; only an entry with an embedded one can do without.
    pub checkpoint: Option<PathBuf>,
    /// Root of the caption and image folders.
    pub data: Option<PathBuf>,
    /// Name of the split, if not the entry's test split.
    pub split: Option<String>,
    /// Only the first images of the split, and their captions.
    pub limit: Option<NonZeroUsize>,
    /// What computes the embeddings.
    pub engine: EngineChoice,
    /// Where.
    pub device: Device,
    /// Threads.
    pub threads: usize,
    /// Images, and captions, that are encoded together.
    pub batch_size: NonZeroUsize,
    /// Largest difference of a recall to a published one, in points.
    pub tolerance: f64,
    /// Bytes that the similarity engine may take, its inputs and the matrix not counted.
    pub memory_limit: usize,
}

impl Request {
    /// Finds what is wrong with the request itself and with the files that its result will be written to.
    pub fn check<'a>(&self, outputs: impl Iterator<Item = &'a Path>) -> Result<()> {
        self.check_options()?;
        if self.checkpoint.is_none() && registry::embedded_checkpoint(&self.entry.name).is_none() {
            return Err(Error::no_checkpoint(&self.entry));
        }
        outputs.into_iter().try_for_each(files::check_writable)?;
        engine::check(self.engine, self.device)
    }

    /// The same without the checkpoint and the outputs: what can be said before anything is fetched.
    pub fn check_options(&self) -> Result<()> {
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err(Error::Option {
                option: "--tolerance",
                expected: "a number of points, not negative".to_owned(),
                found: self.tolerance.to_string(),
            });
        }
        Ok(())
    }
}

impl Error {
    /// An entry that has no checkpoint to offer.
    pub(crate) fn no_checkpoint(entry: &Entry) -> Self {
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
