//! What each stage of a pair costs, measured on a sample after the measurement of the whole.

use std::time::Duration;

use laps_align::similarity::{CaptionMatrix, ImageSource, SimilarityEngine};
use serde::Serialize;

use crate::Result;

/// Images and captions of the sample: a tile of images, and enough captions that blocks of words are full.
const SAMPLE: [usize; 2] = [16, 400];

/// Measurements, of which the shortest counts, for others may use the processor too.
const MEASUREMENTS: usize = 5;

/// What the stages of a pair cost on one thread.
#[derive(Clone, Debug, Serialize)]
pub struct Stages {
    /// Pairs of the sample.
    pub pairs: usize,
    /// Each stage; the preparation of an image is shared among all captions of the whole measurement.
    pub stages: Vec<StageCost>,
    /// Sum of all stages, in microseconds a pair.
    pub sum_us_per_pair: f64,
    /// The same work measured as a whole, without looking at the clock in between, in microseconds a pair. The sum is
    /// larger by what looking at the clock takes.
    pub whole_us_per_pair: f64,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct StageCost {
    /// Its name.
    pub name: &'static str,
    /// Microseconds a pair, on one thread.
    pub us_per_pair: f64,
    /// Share of the sum.
    pub share: f64,
}

impl Stages {
    /// Measures `engine`, which takes `preparation` for an image; `None` where it can not be taken apart.
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
        let each = |time: Duration| time.as_secs_f64() * 1e6 / pairs.max(1) as f64;
        let preparation = preparation.as_secs_f64() * 1e6 / captions.len().max(1) as f64;
        let parts = best.into_iter().flat_map(|(_, parts)| parts).map(|(name, time)| (name, each(time)));
        let parts: Vec<(&'static str, f64)> = std::iter::once(("preparation", preparation)).chain(parts).collect();
        let sum: f64 = parts.iter().map(|(_, time)| time).sum();
        let stages = parts.into_iter().map(|(name, time)| StageCost { name, us_per_pair: time, share: time / sum });
        Ok(Some(Self {
            pairs,
            stages: stages.collect(),
            sum_us_per_pair: sum,
            whole_us_per_pair: preparation + each(whole),
        }))
    }
}
