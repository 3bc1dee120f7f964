//! Times of the stages of a pair, measured apart from normal runs, in which they cost nothing.

use std::time::{Duration, Instant};

/// A stage of the work on pairs, in the order of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairStage {
    /// Packing of the words for the matrix product.
    Packing,
    /// Products of words and tokens.
    Product,
    /// Scores of the patches.
    Scores,
    /// Selection of the patches that a caption keeps.
    Selection,
    /// Products of the groups with the words.
    Groups,
    /// Norms of the groups.
    Norms,
    /// Products of the fused patch with the words, and its norm.
    Fused,
    /// Largest cosine of each word and each token, and their means.
    Maxima,
}

impl PairStage {
    /// All stages.
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

    /// Name of the stage.
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

/// Is notified after each stage.
pub(super) trait Clock {
    /// Assigns the time since the last stage to `stage`.
    fn lap(&mut self, stage: PairStage);
}

/// For normal runs; compiles to nothing.
impl Clock for () {
    #[inline(always)]
    fn lap(&mut self, _: PairStage) {}
}

/// Measures the time of each stage. It reads the time once per stage and pair, which takes some hundredths of a microsecond.
#[derive(Debug)]
pub(super) struct Stopwatch {
    last: Instant,
    times: [Duration; PairStage::ALL.len()],
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { last: Instant::now(), times: [Duration::ZERO; PairStage::ALL.len()] }
    }

    pub(super) fn times(&self) -> Vec<(PairStage, Duration)> {
        PairStage::ALL.into_iter().zip(self.times).collect()
    }
}

impl Clock for Stopwatch {
    #[inline(always)]
    fn lap(&mut self, stage: PairStage) {
        let now = Instant::now();
        self.times[stage as usize] += now - self.last;
        self.last = now;
    }
}

/// Times of the stages on one thread.
#[derive(Clone, Debug)]
pub struct StageTimes {
    /// Number of pairs.
    pub pairs: usize,
    /// Time of each stage for all pairs.
    pub stages: Vec<(PairStage, Duration)>,
    /// Time of the same work without reading the clock between stages.
    pub whole: Duration,
}
