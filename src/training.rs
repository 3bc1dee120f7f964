//! Progress output of training: a bar on a terminal, lines otherwise.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use laps::{EpochLine, Observer, StepLine, Timing};

/// A bar if standard error is a terminal, lines otherwise, nothing if `quiet`.
pub(crate) fn choose(quiet: bool) -> Box<dyn Observer> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(()),
        (false, true) => Box::new(TrainingBar(ProgressBar::hidden())),
        (false, false) => Box::new(TrainingLines),
    }
}

fn describe(line: &EpochLine) -> String {
    let EpochLine { epoch, mean_loss, seconds, timing, recalls, best, .. } = line;
    let timing = describe_timing(timing);
    let [i2t, t2i] = [recalls.i2t, recalls.t2i].map(|r| format!("{:.1} {:.1} {:.1}", r.r1, r.r5, r.r10));
    format!(
        "epoch {epoch}: mean loss {mean_loss:.3}, {seconds:.1} s, {timing}, R@1 R@5 R@10 {i2t} / {t2i}, rSum {:.1}{}",
        recalls.rsum,
        if *best { ", the best so far" } else { "" }
    )
}

fn describe_timing(timing: &Timing) -> String {
    let communication =
        timing.communication.map_or_else(String::new, |share| format!(", {:.0} % communicating", 100.0 * share));
    let Timing { pairs_per_second, data_wait, .. } = timing;
    format!("{pairs_per_second:.1} pairs/s, {:.0} % waiting for data{communication}", 100.0 * data_wait)
}

struct TrainingBar(ProgressBar);

impl Observer for TrainingBar {
    fn note(&mut self, note: &str) {
        self.0.suspend(|| eprintln!("note: {note}"));
    }

    fn begin(&mut self, epoch: usize, from: usize, steps: usize) {
        let bar = ProgressBar::new(steps as u64).with_message(format!("epoch {epoch}"));
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}  {eta} left  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(format!("epoch {epoch}"));
        bar.set_position(from as u64);
        bar.reset_eta();
        self.0 = bar;
    }

    fn step(&mut self, line: &StepLine, timing: &Timing) {
        let StepLine { loss, learning_rate, .. } = line;
        self.0.set_message(format!("loss {loss:.3}, rate {learning_rate:.1e}, {}", describe_timing(timing)));
        self.0.inc(1);
    }

    fn epoch(&mut self, line: &EpochLine) {
        self.0.finish_and_clear();
        eprintln!("{}", describe(line));
    }
}

/// One line per epoch and per saved state.
struct TrainingLines;

impl Observer for TrainingLines {
    fn note(&mut self, note: &str) {
        eprintln!("note: {note}");
    }

    fn saved(&mut self, step: u64) {
        eprintln!("step {step}: saved");
    }

    fn epoch(&mut self, line: &EpochLine) {
        eprintln!("{}", describe(line));
    }
}
