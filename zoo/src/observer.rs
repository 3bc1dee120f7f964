//! Events of a training run.

use serde::Serialize;

use laps_align::Directions;

/// A step that is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepLine {
    /// Steps that are done, over all epochs.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// The loss; `null` in JSON where it is not finite.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the heads.
    pub learning_rate: f64,
    /// Pairs that had a gradient.
    pub pairs: usize,
    /// Whether loss and gradient were finite; otherwise the step was skipped and the weights are unchanged.
    pub finite: bool,
}

/// An epoch that is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EpochLine {
    /// Steps that are done, over all epochs.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Mean over the steps whose loss was finite.
    pub mean_loss: f64,
    /// Steps so far whose loss or gradient was not finite.
    pub non_finite: u64,
    /// Seconds of the epoch's steps in this process, without validation.
    pub seconds: f64,
    /// Time of these steps.
    #[serde(flatten)]
    pub timing: Timing,
    /// Recalls on the split that the best epoch is selected on.
    pub recalls: Directions,
    /// Whether they are the best so far by their sum.
    pub best: bool,
}

/// Time spent by the steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Pairs of the global batch per second.
    pub pairs_per_second: f64,
    /// Share of the time that the steps waited for data; with several ranks, that of the slowest rank.
    pub data_wait: f64,
    /// Share of the time that rank 0 waited for operations on all ranks; None for a process that does not communicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication: Option<f64>,
    /// Bytes that rank 0 contributed to operations on all ranks, in a step on average; None for a process that does not
    /// communicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication_bytes: Option<u64>,
}

/// Receives the events of a training run. `()` ignores them.
pub trait Observer {
    /// Something that the user should know.
    fn note(&mut self, note: &str) {
        let _ = note;
    }

    /// An epoch of `steps` steps begins or goes on at `from`.
    fn begin(&mut self, epoch: usize, from: usize, steps: usize) {
        let _ = (epoch, from, steps);
    }

    /// A step is done; `timing` is that of the epoch so far.
    fn step(&mut self, line: &StepLine, timing: &Timing) {
        let _ = (line, timing);
    }

    /// The state is saved.
    fn saved(&mut self, step: u64) {
        let _ = step;
    }

    /// An epoch is done.
    fn epoch(&mut self, line: &EpochLine) {
        let _ = line;
    }
}

impl Observer for () {}
