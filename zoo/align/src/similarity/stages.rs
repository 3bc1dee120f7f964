//! What the parts of the work cost, measured apart from normal runs, which know nothing of it.

use std::time::{Duration, Instant};

/// A part of the work on pairs, in the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Words are packed for the matrix product.
    Packing,
    /// Products of words and tokens.
    Product,
    /// Scores of the patches.
    Scores,
    /// Which patches a caption keeps.
    Selection,
    /// Products of the groups with the words.
    Groups,
    /// Norms of the groups.
    Norms,
    /// The fused patch: its products with the words and its norm.
    Fused,
    /// The largest cosine of each word and of each token, and their means.
    Maxima,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Packing,
        Self::Product,
        Self::Scores,
        Self::Selection,
        Self::Groups,
        Self::Norms,
        Self::Fused,
        Self::Maxima,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packing => "packing",
            Self::Product => "product",
            Self::Scores => "scores",
            Self::Selection => "selection",
            Self::Groups => "groups",
            Self::Norms => "norms",
            Self::Fused => "fused",
            Self::Maxima => "maxima",
        }
    }
}

/// Hears that a stage is over.
pub(super) trait Clock {
    /// All time since the stage before belongs to `stage`.
    fn lap(&mut self, stage: Stage);
}

/// Of normal runs: nothing is compiled for it.
impl Clock for () {
    #[inline(always)]
    fn lap(&mut self, _: Stage) {}
}

/// Time of each stage. It asks for the time once a stage and pair: some hundredths of a microsecond each.
#[derive(Debug)]
pub(super) struct Stopwatch {
    last: Instant,
    times: [Duration; Stage::ALL.len()],
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { last: Instant::now(), times: [Duration::ZERO; Stage::ALL.len()] }
    }

    pub(super) fn times(&self) -> Vec<(Stage, Duration)> {
        Stage::ALL.into_iter().zip(self.times).collect()
    }
}

impl Clock for Stopwatch {
    #[inline(always)]
    fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.times[stage as usize] += now - self.last;
        self.last = now;
    }
}

/// What [`Engine::stages`](super::Engine::stages) measured, on one thread.
#[derive(Clone, Debug)]
pub struct StageTimes {
    /// Pairs that were computed.
    pub pairs: usize,
    /// Time of each stage for all of them.
    pub stages: Vec<(Stage, Duration)>,
    /// Time of the same work without looking at the clock in between.
    pub whole: Duration,
}
