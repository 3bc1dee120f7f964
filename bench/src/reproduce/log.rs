//! What the parts of the work tell: progress while it runs, times and notes for the result.

use std::time::{Duration, Instant};

use super::Stage;
use crate::progress::Progress;

/// Collects stages and notes, and passes progress on.
pub(super) struct Log<'a> {
    pub(super) progress: &'a dyn Progress,
    pub(super) stages: Vec<Stage>,
    pub(super) notes: Vec<String>,
}

impl<'a> Log<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, stages: Vec::new(), notes: Vec::new() }
    }

    /// A stage whose time was measured apart.
    pub(super) fn add(&mut self, name: &'static str, items: usize, unit: &'static str, time: Duration) -> &Stage {
        let at = self.stages.len();
        self.stages.push(Stage { name: name.into(), items, unit: unit.into(), seconds: time.as_secs_f64() });
        &self.stages[at]
    }

    /// Does a stage that has progress of its own.
    pub(super) fn follow<R, E>(
        &mut self,
        name: &'static str,
        items: usize,
        unit: &'static str,
        work: impl FnOnce(&dyn Progress) -> Result<R, E>,
    ) -> Result<R, E> {
        self.progress.begin(name, items);
        let began = Instant::now();
        let result = work(self.progress)?;
        let progress = self.progress;
        let stage = self.add(name, items, unit, began.elapsed());
        progress.end(&format!("{items} {unit} in {:.2} s, {:.1} a second", stage.seconds, stage.rate()));
        Ok(result)
    }
}
