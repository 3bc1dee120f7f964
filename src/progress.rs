//! Progress on a terminal, in a file, or not at all.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
};

use bench::progress::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// The progress that fits: bars on a terminal, lines otherwise, nothing when `quiet`.
pub(crate) fn choose(quiet: bool) -> Box<dyn Progress> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(()),
        (false, true) => Box::new(Bars::default()),
        (false, false) => Box::new(Lines::default()),
    }
}

/// One bar at a time on standard error.
#[derive(Default)]
struct Bars(Mutex<Option<ProgressBar>>);

impl Bars {
    fn with(&self, f: impl FnOnce(&mut Option<ProgressBar>)) {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bars {
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

/// A line when a stage begins and ends, and when a part is saved, on standard error.
#[derive(Default)]
struct Lines(Mutex<String>);

impl Progress for Lines {
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
