//! The arguments of an evaluation.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use laps::{Backend, Backends, RankGroup, RustBackend, SingleRank};
use laps_data::LongCaptions;
use laps_hub::registry::{self, Entry};
use laps_model::encoder::Device;

use crate::{Error, Result, audit::CaptionOrder, files};

/// The inputs and options of an evaluation.
#[derive(Clone, Debug)]
pub struct ReproduceRequest {
    /// The entry.
    pub entry: Entry,
    /// The checkpoint; optional only for entries with an embedded one.
    pub checkpoint: Option<PathBuf>,
    /// Root of the caption and image folders.
    pub data: Option<PathBuf>,
    /// Split; `None` is the entry's test split.
    pub split: Option<String>,
    /// Treatment of captions that are longer than the text encoder has positions.
    pub long_captions: LongCaptions,
    /// Which text each caption has; any order but the one written is for audits.
    pub caption_order: CaptionOrder,
    /// Evaluate only the first images of the split and their captions.
    pub limit: Option<NonZeroUsize>,
    /// Computes the embeddings.
    pub backend: Rc<dyn Backend>,
    /// Backends of this program, which offer similarities on a GPU.
    pub backends: Backends,
    /// The processes that share the work. Rank 0 writes the files.
    pub group: Rc<dyn RankGroup>,
    /// Number of threads.
    pub threads: usize,
    /// Batch size of the encoders, in images or captions.
    pub batch_size: NonZeroUsize,
    /// Largest accepted difference between a measured and a published recall, in points.
    pub tolerance: f64,
    /// Memory limit of the similarity engine in bytes, not counting its inputs and the matrix.
    pub memory_limit: usize,
    /// Write the similarity matrix to this regular file as it is computed: safetensors, key `sims`, images x captions (see
    /// [`MatrixFile`](laps_align::similarity::MatrixFile)). A later run with the same arguments resumes: it skips
    /// images whose rows are complete, and encodes the captions again unless all rows are.
    pub sims: Option<PathBuf>,
    /// Write the best candidates of each query to this file, as a run file of TREC.
    pub run: Option<PathBuf>,
    /// Write the result files of MTEB to this folder, see [`mteb`](crate::publish::mteb).
    pub mteb: Option<PathBuf>,
}

impl ReproduceRequest {
    /// Evaluates the whole test split of `entry` with the pure-Rust engine on one CPU thread.
    pub fn new(entry: Entry) -> Self {
        Self {
            entry,
            checkpoint: None,
            data: None,
            split: None,
            long_captions: LongCaptions::Refuse,
            caption_order: CaptionOrder::AsWritten,
            limit: None,
            backend: Rc::new(RustBackend::new(Device::Cpu)),
            backends: Backends::default(),
            group: Rc::new(SingleRank),
            threads: 1,
            batch_size: NonZeroUsize::MIN.saturating_add(15),
            tolerance: 0.1,
            memory_limit: 1 << 30,
            sims: None,
            run: None,
            mteb: None,
        }
    }

    /// Whether rank 0 needs all rows of the matrix, for a file.
    pub(super) fn needs_whole_matrix(&self) -> bool {
        self.sims.is_some() || self.run.is_some() || self.mteb.is_some()
    }

    /// Checks the request, and that the files it writes are writable.
    ///
    /// # Errors
    /// [`Error::Argument`], those of [`check_outputs`](Self::check_outputs), a missing checkpoint, and a backend that is
    /// not available.
    pub fn check(&self) -> Result<()> {
        self.check_options()?;
        if self.checkpoint.is_none() && registry::embedded_checkpoint(&self.entry.name).is_none() {
            return Err(laps::Error::no_checkpoint(&self.entry).into());
        }
        if self.group.rank() == 0 {
            self.check_outputs(None)?;
        }
        Ok(self.backend.check()?)
    }

    /// Checks that the files of the request and `other` are writable, to run on rank 0 before anything is downloaded.
    ///
    /// # Errors
    /// [`Error::Write`], and [`laps_files::Error::NotSeekable`] if [`sims`](Self::sims) is not a regular file.
    pub fn check_outputs(&self, other: Option<&Path>) -> Result<()> {
        other.into_iter().chain(self.run.as_deref()).try_for_each(files::check_writable)?;
        self.sims.as_deref().map_or(Ok(()), files::check_seekable)
    }

    /// The part of [`check`](Self::check) that needs no files, to run before anything is downloaded.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check_options(&self) -> Result<()> {
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err(Error::Argument {
                argument: "tolerance",
                expected: "a non-negative number of points".to_owned(),
                found: self.tolerance.to_string(),
            });
        }
        Ok(())
    }
}
