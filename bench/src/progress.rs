//! Progress of the stages of a run.

use laps_files::{Progress, ProgressUnit};

/// A stage of a run, reported to a [`Progress`].
#[derive(Clone, Copy)]
pub struct StageProgress<'a> {
    progress: &'a dyn Progress,
    name: &'a str,
}

impl<'a> StageProgress<'a> {
    /// Begins the stage `name` of `total` steps.
    pub fn begin(progress: &'a dyn Progress, name: &'a str, total: usize) -> Self {
        progress.begin(name, 0, Some(total as u64), ProgressUnit::Items);
        Self { progress, name }
    }

    /// `steps` more steps are done.
    pub fn advance(&self, steps: usize) {
        self.progress.advance(self.name, steps as u64);
    }

    /// `parts` of `all` parts are saved and survive an interruption.
    pub fn saved(&self, parts: usize, all: usize) {
        self.progress.message(self.name, &format!("saved {parts} of {all} parts"));
    }

    /// The stage is done; `summary` is its outcome in one line.
    pub fn end(self, summary: &str) {
        self.progress.end(self.name, summary);
    }
}
