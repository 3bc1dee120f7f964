//! Progress output: bars, lines or nothing.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
};

use indicatif::{ProgressBar, ProgressStyle};
use laps_bench::progress::Progress;

/// ProgressBars if standard error is a terminal, lines otherwise, nothing if `quiet`.
pub(crate) fn choose(quiet: bool) -> Box<dyn Progress> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(()),
        (false, true) => Box::new(ProgressBars::default()),
        (false, false) => Box::new(ProgressLines::default()),
    }
}

/// One progress bar at a time on standard error.
#[derive(Default)]
struct ProgressBars(Mutex<Option<ProgressBar>>);

impl ProgressBars {
    fn with(&self, f: impl FnOnce(&mut Option<ProgressBar>)) {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for ProgressBars {
    fn begin(&self, stage: &str, total: usize) {
        let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len}  {per_sec}  {eta} left");
        let bar = ProgressBar::new(total as u64).with_message(stage.to_owned());
        if let Ok(style) = style {
            bar.set_style(style);
        }
        self.with(|current| *current = Some(bar));
    }

    fn advance(&self, steps: usize) {
        self.with(|current| current.iter().for_each(|bar| bar.inc(steps as u64)));
    }

    fn end(&self, summary: &str) {
        self.with(|current| {
            if let Some(bar) = current.take() {
                let stage = bar.message();
                bar.finish_and_clear();
                eprintln!("{stage}: {summary}");
            }
        });
    }
}

/// One line on standard error when a stage begins, ends or saves a part.
#[derive(Default)]
struct ProgressLines(Mutex<String>);

impl Progress for ProgressLines {
    fn begin(&self, stage: &str, total: usize) {
        stage.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        eprintln!("{stage}: {total} to do");
    }

    fn saved(&self, parts: usize, all: usize) {
        eprintln!("{}: saved {parts} of {all} parts", self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn end(&self, summary: &str) {
        eprintln!("{}: {summary}", self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
