//! In which order samples come.

use std::ops::Range;

use crate::random::SplitMix64;

/// Batches of shuffled samples. The order of an epoch depends on seed and epoch alone, so that a position is an epoch and
/// a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    samples: usize,
    batch: usize,
    seed: u64,
}

impl Sampler {
    /// Batches of `batch` out of `samples` samples.
    pub fn new(samples: usize, batch: usize, seed: u64) -> Self {
        Self { samples, batch: batch.max(1), seed }
    }

    /// Whole batches of an epoch; what is left over is left out.
    pub fn steps(&self) -> usize {
        self.samples / self.batch
    }

    /// The samples of an epoch, in the order in which they come.
    pub fn epoch(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.samples).collect();
        SplitMix64::named(self.seed, &format!("epoch {epoch}")).shuffle(&mut order);
        order.truncate(self.steps() * self.batch);
        order
    }

    /// Where the samples of `step` are in an epoch.
    pub fn range(&self, step: usize) -> Range<usize> {
        step * self.batch..(step + 1) * self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::Sampler;

    #[test]
    fn every_epoch_is_another_order_of_all_samples() {
        let sampler = Sampler::new(23, 5, 7);
        assert_eq!(sampler.steps(), 4);
        let [first, second] = [0, 1].map(|epoch| sampler.epoch(epoch));
        assert_ne!(first, second);
        assert_eq!(first, sampler.epoch(0));
        assert_ne!(first, Sampler::new(23, 5, 8).epoch(0));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 20);
        assert_eq!(sampler.range(3), 15..20);
    }
}
