//! Progress, times and notes of a run.

use std::time::{Duration, Instant};

use laps_files::Progress;

use super::StageTime;
use crate::progress::StageProgress;

/// Collects the times and notes of a run for its result, and passes progress on.
pub(super) struct StageLog<'a> {
    pub(super) progress: &'a dyn Progress,
    pub(super) stages: Vec<StageTime>,
    pub(super) notes: Vec<String>,
}

impl<'a> StageLog<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, stages: Vec::new(), notes: Vec::new() }
    }

    /// Adds a stage that was timed by the caller.
    pub(super) fn add(&mut self, name: &'static str, items: usize, unit: &'static str, time: Duration) -> &StageTime {
        let index = self.stages.len();
        self.stages.push(StageTime { name: name.into(), items, unit: unit.into(), seconds: time.as_secs_f64() });
        &self.stages[index]
    }

    /// Runs and times a stage that reports its progress.
    pub(super) fn run<R, E>(
        &mut self,
        name: &'static str,
        items: usize,
        unit: &'static str,
        work: impl FnOnce(&StageProgress<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let progress = StageProgress::begin(self.progress, name, items);
        let began = Instant::now();
        let result = work(&progress)?;
        let stage = self.add(name, items, unit, began.elapsed());
        progress.end(&format!("{items} {unit} in {:.2} s, {:.1} per second", stage.seconds, stage.rate()));
        Ok(result)
    }
}
