//! The order of the samples in an epoch.

use super::TrainError;
use laps_model::random::SplitMix64;

/// Shuffles the samples of every epoch. A sample is a caption with its image; its index is that of the caption in the split.
/// Samples that do not fill a last batch are dropped from the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sampler {
    samples: usize,
    batch_size: usize,
    seed: u64,
    neighbours: Option<Neighbours>,
}

/// Groups of consecutive images of a split that stay in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Neighbours {
    /// Captions of each image.
    captions: Vec<Vec<usize>>,
    /// Images of a group.
    count: usize,
}

/// The batches of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EpochOrder {
    order: Vec<usize>,
    batch_size: usize,
}

impl Sampler {
    /// A sampler of `samples` samples in batches of `batch_size`.
    ///
    /// # Errors
    /// [`TrainError::TooFewSamples`] if they do not fill a batch.
    pub(super) fn new(samples: usize, batch_size: usize, seed: u64) -> Result<Self, TrainError> {
        if batch_size == 0 || samples < batch_size {
            return Err(TrainError::TooFewSamples { samples, batch_size });
        }
        Ok(Self { samples, batch_size, seed, neighbours: None })
    }

    /// Keeps groups of `count` consecutive images of the split together, each with one caption at a time. `image_of` holds
    /// the image of each caption. With a `count` of 1, captions are shuffled independently.
    pub(super) fn with_neighbours(self, image_of: &[usize], count: usize) -> Self {
        if count <= 1 {
            return Self { neighbours: None, ..self };
        }
        let mut captions = vec![Vec::new(); image_of.iter().max().map_or(0, |last| last + 1)];
        for (caption, &image) in image_of.iter().enumerate().take(self.samples) {
            captions[image].push(caption);
        }
        Self { neighbours: Some(Neighbours { captions, count }), ..self }
    }

    /// Number of batches of an epoch, at least 1.
    pub(super) fn batches(&self) -> usize {
        self.samples / self.batch_size
    }

    /// The order of `epoch`. It depends on the seed, the epoch, the samples and the groups.
    pub(super) fn epoch(&self, epoch: usize) -> EpochOrder {
        let mut random = SplitMix64::named(self.seed, &format!("order of epoch {epoch}"));
        let mut order = match &self.neighbours {
            Some(neighbours) => neighbours.order(&mut random),
            None => {
                let mut order: Vec<usize> = (0..self.samples).collect();
                random.shuffle(&mut order);
                order
            }
        };
        order.truncate(self.batches() * self.batch_size);
        EpochOrder { order, batch_size: self.batch_size }
    }
}

impl Neighbours {
    /// One round for each caption of an image. Each round shuffles the groups and takes one caption of each image.
    fn order(&self, random: &mut SplitMix64) -> Vec<usize> {
        let mut captions = self.captions.clone();
        captions.iter_mut().for_each(|captions| random.shuffle(captions));
        let mut groups: Vec<&[Vec<usize>]> = captions.chunks(self.count).collect();
        let rounds = captions.iter().map(Vec::len).max().unwrap_or(0);
        let mut order = Vec::new();
        for round in 0..rounds {
            random.shuffle(&mut groups);
            order.extend(groups.iter().flat_map(|group| group.iter()).filter_map(|captions| captions.get(round)));
        }
        order
    }
}

impl EpochOrder {
    /// Number of batches of the epoch.
    #[cfg(test)]
    pub(super) fn batches(&self) -> usize {
        self.order.len() / self.batch_size
    }

    /// Samples of batch `batch`; `None` after the last batch.
    pub(super) fn batch(&self, batch: usize) -> Option<&[usize]> {
        self.order.chunks_exact(self.batch_size).nth(batch)
    }

    /// Samples from batch `batch` on; empty after the last batch.
    pub(super) fn from(&self, batch: usize) -> &[usize] {
        batch.checked_mul(self.batch_size).and_then(|start| self.order.get(start..)).unwrap_or(&[])
    }

    /// Samples of a batch.
    pub(super) fn batch_size(&self) -> usize {
        self.batch_size
    }
}

#[cfg(test)]
mod tests {
    use super::Sampler;

    #[test]
    fn epoch_holds_every_sample_at_most_once_in_full_batches() {
        let sampler = Sampler::new(103, 10, 7).unwrap();
        for epoch in 0..3 {
            let order = sampler.epoch(epoch);
            assert_eq!((sampler.batches(), order.batches(), order.batch(10)), (10, 10, None));
            let mut seen: Vec<usize> = (0..10).flat_map(|batch| order.batch(batch).unwrap()).copied().collect();
            assert_eq!(seen[30..], *order.from(3));
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 100);
            assert!(seen.iter().all(|&sample| sample < 103));
        }
        assert!(sampler.epoch(0).from(usize::MAX).is_empty());
    }

    #[test]
    fn order_depends_on_seed_and_epoch_but_not_on_batch_size() {
        let order = |batch_size, seed, epoch| Sampler::new(60, batch_size, seed).unwrap().epoch(epoch).order;
        assert_eq!(order(10, 7, 3), order(10, 7, 3));
        assert_eq!(order(10, 7, 3), order(20, 7, 3));
        assert_ne!(order(10, 7, 3), order(10, 7, 4));
        assert_ne!(order(10, 7, 3), order(10, 8, 3));
        // A seed gives the same order in every version.
        assert_eq!(order(10, 7, 3)[..6], FIRST);
    }

    const FIRST: [usize; 6] = [45, 31, 4, 17, 41, 14];

    /// Over many epochs every sample is dropped about equally often.
    #[test]
    fn dropped_samples_change_between_epochs() {
        let sampler = Sampler::new(12, 10, 1).unwrap();
        let mut missing = [0_i32; 12];
        for epoch in 0..6000 {
            let order = sampler.epoch(epoch);
            (0..12).filter(|sample| !order.order.contains(sample)).for_each(|sample| missing[sample] += 1);
        }
        // 6000 draws with probability 1/6: five standard deviations are 5 * sqrt(6000 * 5 / 36) = 145.
        assert!(missing.iter().all(|&count| (count - 1000).abs() < 145), "{missing:?}");
    }

    #[test]
    fn neighbours_stay_together_and_every_caption_comes_once() {
        // 40 images with 5 captions each, except the last, which has 1.
        let image_of: Vec<usize> = (0..196).map(|caption| caption / 5).collect();
        let sampler = Sampler::new(196, 20, 3).unwrap();
        let order = sampler.clone().with_neighbours(&image_of, 4).epoch(1).order;
        let mut seen = order.clone();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((order.len(), seen.len()), (180, 180));
        // Every image has a caption in the first round, so the groups are complete.
        for group in order[..40].chunks_exact(4) {
            let images: Vec<usize> = group.iter().map(|&caption| image_of[caption]).collect();
            assert!(images[0].is_multiple_of(4) && images.iter().zip(images[0]..).all(|(&a, b)| a == b), "{images:?}");
        }
        assert_ne!(order, sampler.clone().with_neighbours(&image_of, 4).epoch(2).order);
        assert_eq!(sampler.clone().with_neighbours(&image_of, 1), sampler);
    }

    #[test]
    fn too_few_samples_for_a_batch_are_rejected() {
        assert_eq!(Sampler::new(10, 10, 0).unwrap().batches(), 1);
        let error = Sampler::new(9, 10, 0).unwrap_err();
        let expected = "the data does not fill one batch\n  expected: at least 10 captions\n  found: 9 captions";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.hint().unwrap(), "set `train.batch_size` to 9 or less");
        assert!(Sampler::new(0, 0, 0).is_err());
    }
}
