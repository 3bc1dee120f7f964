//! What is asked for.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use laps::{Backend, Backends, RustBackend};
use laps_hub::registry::{self, Entry};
use laps_model::encoder::Device;

use crate::{Error, Result, files};

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
    /// Computes the embeddings.
    pub backend: Rc<dyn Backend>,
    /// Backends of this program, which offer similarities on a GPU.
    pub backends: Backends,
    /// Threads.
    pub threads: usize,
    /// Images, and captions, that are encoded together.
    pub batch_size: NonZeroUsize,
    /// Largest difference of a recall to a published one, in points.
    pub tolerance: f64,
    /// Bytes that the similarity engine may take, its inputs and the matrix not counted.
    pub memory_limit: usize,
    /// The file that the similarity matrix is written to as it grows, as safetensors under the key `sims`, images x
    /// captions; see [`MatrixFile`](laps_align::similarity::MatrixFile). A run that was ended goes on with what is
    /// there: images whose rows are complete are not encoded again; captions are, unless all rows are there.
    pub sims: Option<PathBuf>,
}

impl Request {
    /// The whole test split of `entry` on the processor, with the defaults of the command.
    pub fn new(entry: Entry) -> Self {
        Self {
            entry,
            checkpoint: None,
            data: None,
            split: None,
            limit: None,
            backend: Rc::new(RustBackend::new(Device::Cpu)),
            backends: Backends::default(),
            threads: 1,
            batch_size: NonZeroUsize::MIN.saturating_add(15),
            tolerance: 0.1,
            memory_limit: 1 << 30,
            sims: None,
        }
    }

    /// Finds what is wrong with the request itself and with the files that it and its result, `outputs`, will be written to.
    pub fn check<'a>(&'a self, outputs: impl Iterator<Item = &'a Path>) -> Result<()> {
        self.check_options()?;
        if self.checkpoint.is_none() && registry::embedded_checkpoint(&self.entry.name).is_none() {
            return Err(laps::Error::no_checkpoint(&self.entry).into());
        }
        outputs.chain(self.sims.as_deref()).try_for_each(files::check_writable)?;
        Ok(self.backend.check()?)
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
