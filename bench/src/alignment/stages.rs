//! Time of each stage of a similarity, measured on a sample after the measurement of the whole.

use std::time::Duration;

use laps_align::similarity::{CaptionMatrix, ImageSource, SimilarityEngine};
use serde::Serialize;

use crate::Result;

/// Images and captions of the sample: one tile of images, and enough captions to fill blocks of words.
const SAMPLE: [usize; 2] = [16, 400];

/// Number of measurements; the shortest counts, because other processes may use the CPU.
const MEASUREMENTS: usize = 5;

/// Time of each stage of a pair on one thread.
#[derive(Clone, Debug, Serialize)]
pub struct Stages {
    /// Number of pairs of the sample.
    pub pairs: usize,
    /// The stages. The preparation of an image is divided by the number of captions of the whole measurement.
    pub stages: Vec<StageCost>,
    /// Sum of all stages, in microseconds per pair.
    pub sum_us_per_pair: f64,
    /// The same work measured as a whole, in microseconds per pair. The sum is larger by the overhead of reading the
    /// clock between stages.
    pub whole_us_per_pair: f64,
}

/// The time of one stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageCost {
    /// Name of the stage.
    pub name: &'static str,
    /// Microseconds per pair on one thread.
    pub us_per_pair: f64,
    /// Share of the sum.
    pub share: f64,
}

impl Stages {
    /// Measures the stages of `engine`, whose preparation of an image takes `preparation`; `None` if the engine cannot
    /// report stages.
    pub(super) fn measure(
        engine: &dyn SimilarityEngine,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        preparation: Duration,
    ) -> Result<Option<Self>> {
        let count = [SAMPLE[0].min(images.len()), SAMPLE[1].min(captions.len())];
        let mut best: Option<(Duration, Vec<(&'static str, Duration)>)> = None;
        let mut whole = Duration::MAX;
        let mut pairs = 0;
        for _ in 0..MEASUREMENTS {
            let Some(times) = engine.stage_times(images, captions, count[0], count[1])? else { return Ok(None) };
            let sum = times.stages.iter().map(|&(_, time)| time).sum();
            if best.as_ref().is_none_or(|(least, _)| sum < *least) {
                best = Some((sum, times.stages.iter().map(|&(stage, time)| (stage.name(), time)).collect()));
            }
            whole = whole.min(times.whole);
            pairs = times.pairs;
        }
        let per_pair = |time: Duration| time.as_secs_f64() * 1e6 / pairs.max(1) as f64;
        let preparation = preparation.as_secs_f64() * 1e6 / captions.len().max(1) as f64;
        let parts = best.into_iter().flat_map(|(_, stages)| stages).map(|(name, time)| (name, per_pair(time)));
        let parts: Vec<(&'static str, f64)> = std::iter::once(("preparation", preparation)).chain(parts).collect();
        let sum: f64 = parts.iter().map(|(_, time)| time).sum();
        let stages = parts.into_iter().map(|(name, time)| StageCost { name, us_per_pair: time, share: time / sum });
        Ok(Some(Self {
            pairs,
            stages: stages.collect(),
            sum_us_per_pair: sum,
            whole_us_per_pair: preparation + per_pair(whole),
        }))
    }
}
