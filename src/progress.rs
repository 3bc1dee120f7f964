//! Progress output: bars, lines or nothing.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use laps_files::{Progress, ProgressUnit};

/// Progress bars if standard error is a terminal, lines otherwise, nothing if `quiet`.
pub(crate) fn choose(quiet: bool) -> Box<dyn Progress> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(()),
        (false, true) => Box::new(ProgressBars::default()),
        (false, false) => Box::new(ProgressLines),
    }
}

/// One bar per task on standard error; below downloads, one bar for all of them.
#[derive(Default)]
struct ProgressBars {
    screen: MultiProgress,
    bars: Mutex<Bars>,
}

#[derive(Default)]
struct Bars {
    /// Running tasks that count items.
    items: BTreeMap<String, ProgressBar>,
    /// Tasks that count bytes, also those that ended.
    bytes: BTreeMap<String, ProgressBar>,
    /// The sum of `bytes`, once there is one.
    total: Option<ProgressBar>,
}

impl ProgressBars {
    fn bars(&self) -> MutexGuard<'_, Bars> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_bytes(&self, task: &str, position: u64, total: Option<u64>) {
        let mut bars = self.bars();
        let Bars { bytes, total: sum, .. } = &mut *bars;
        let sum = sum.get_or_insert_with(|| {
            self.screen.add(ProgressBar::new(0).with_message("all files").with_style(bytes_style()))
        });
        let bar = bytes.entry(task.to_owned()).or_insert_with(|| {
            let name = task.rsplit('/').next().unwrap_or(task).to_owned();
            self.screen.insert_before(sum, ProgressBar::no_length().with_message(name).with_style(bytes_style()))
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(position);
        bar.reset_eta();
        sum.set_length(bytes.values().filter_map(ProgressBar::length).sum());
        sum.set_position(bytes.values().map(ProgressBar::position).sum());
    }
}

impl Progress for ProgressBars {
    fn begin(&self, task: &str, position: u64, total: Option<u64>, unit: ProgressUnit) {
        match unit {
            ProgressUnit::Bytes => self.begin_bytes(task, position, total),
            ProgressUnit::Items => {
                let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_message(task.to_owned());
                let bar = self.screen.add(bar.with_style(items_style()).with_position(position));
                self.bars().items.insert(task.to_owned(), bar);
            }
        }
    }

    fn advance(&self, task: &str, amount: u64) {
        let bars = self.bars();
        if let Some(bar) = bars.items.get(task) {
            bar.inc(amount);
        } else if let Some(bar) = bars.bytes.get(task) {
            bar.inc(amount);
            bars.total.iter().for_each(|sum| sum.inc(amount));
        }
    }

    fn message(&self, task: &str, message: &str) {
        // Behind the bar of a running task; messages about downloads stay on the screen.
        let shown = self.bars().items.get(task).map(|bar| bar.set_prefix(message.to_owned()));
        if shown.is_none() {
            self.screen.suspend(|| eprintln!("{task}: {message}"));
        }
    }

    fn end(&self, task: &str, summary: &str) {
        let mut bars = self.bars();
        if let Some(bar) = bars.items.remove(task) {
            bar.finish_and_clear();
        }
        bars.bytes.get(task).iter().for_each(|bar| bar.finish());
        drop(bars);
        self.screen.suspend(|| eprintln!("{task}: {summary}"));
    }
}

impl Drop for ProgressBars {
    fn drop(&mut self) {
        let bars = self.bars();
        bars.items.values().chain(bars.bytes.values()).chain(&bars.total).for_each(ProgressBar::finish_and_clear);
    }
}

fn items_style() -> ProgressStyle {
    style("{msg:24} {wide_bar} {pos}/{len}  {per_sec}  {eta} left  {prefix}")
}

fn bytes_style() -> ProgressStyle {
    style("{msg:24} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One line on standard error when a task begins or ends, or has a message.
struct ProgressLines;

impl Progress for ProgressLines {
    fn begin(&self, task: &str, position: u64, total: Option<u64>, unit: ProgressUnit) {
        match (unit, total) {
            (ProgressUnit::Items, Some(total)) => eprintln!("{task}: {total} to do"),
            (ProgressUnit::Items, None) => eprintln!("{task}: begins"),
            (ProgressUnit::Bytes, Some(total)) => eprintln!("{task}: from {position} of {total} bytes"),
            (ProgressUnit::Bytes, None) => eprintln!("{task}: from {position} bytes"),
        }
    }

    fn message(&self, task: &str, message: &str) {
        eprintln!("{task}: {message}");
    }

    fn end(&self, task: &str, summary: &str) {
        eprintln!("{task}: {summary}");
    }
}
