//! Learning rates, warm-up and negatives by epoch and step.

use laps_hub::registry::TrainConfig;

/// Learning rates, warm-up, negatives and frozen epochs of a recipe. Epochs and batches are counted from 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    learning_rate: f64,
    backbone_lr_ratio: f64,
    decay_epochs: Vec<usize>,
    decay_rate: f64,
    warmup_epochs: usize,
    frozen_epochs: usize,
}

/// The negatives of an image or caption that count in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negatives {
    /// The sum over all negatives of the batch.
    All,
    /// The negative with the largest loss.
    Hardest,
}

impl Schedule {
    /// The schedule of a recipe.
    pub(super) fn new(config: &TrainConfig) -> Self {
        Self {
            learning_rate: config.learning_rate,
            backbone_lr_ratio: config.backbone_lr_ratio,
            decay_epochs: config.decay_epochs.clone(),
            decay_rate: config.decay_rate,
            warmup_epochs: config.warmup_epochs,
            frozen_epochs: if config.freeze_backbones { usize::MAX } else { config.frozen_epochs },
        }
    }

    /// Learning rate of projections and alignment.
    pub(super) fn learning_rate(&self, epoch: usize) -> f64 {
        // Multiplied step by step, as an optimizer's learning rate is updated in place.
        let decays = self.decay_epochs.iter().filter(|&&at| at <= epoch);
        decays.fold(self.learning_rate, |rate, _| rate * self.decay_rate)
    }

    /// Learning rate of the backbones, 0 while they are frozen.
    pub(super) fn backbone_learning_rate(&self, epoch: usize) -> f64 {
        if self.backbones_are_frozen(epoch) { 0.0 } else { self.learning_rate(epoch) * self.backbone_lr_ratio }
    }

    /// Whether the backbones are frozen.
    pub(super) fn backbones_are_frozen(&self, epoch: usize) -> bool {
        epoch < self.frozen_epochs
    }

    /// The negatives that count in `epoch`.
    pub(super) fn negatives(&self, epoch: usize) -> Negatives {
        if epoch < self.warmup_epochs { Negatives::All } else { Negatives::Hardest }
    }

    /// Factor of the alignment loss. It rises linearly from 0 at the first batch to 1 at the end of the warm-up. For a warm-up
    /// of one epoch it is `batch / batches`, as in the authors' code.
    pub(super) fn warm_up(&self, epoch: usize, batch: usize, batches: usize) -> f64 {
        if epoch >= self.warmup_epochs || batches == 0 {
            return 1.0;
        }
        (epoch * batches + batch) as f64 / (self.warmup_epochs * batches) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{Negatives, Schedule, TrainConfig};

    #[test]
    fn learning_rates_decay_at_the_recipes_epochs() {
        let schedule = Schedule::new(&TrainConfig::default());
        let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        for (epochs, rate) in [(0..9, 2e-4), (9..15, 6e-5), (15..20, 1.8e-5), (20..25, 5.4e-6), (25..30, 1.62e-6)] {
            for epoch in epochs {
                close(schedule.learning_rate(epoch), rate);
                close(schedule.backbone_learning_rate(epoch), rate / 10.0);
            }
        }
        let late = TrainConfig { decay_epochs: vec![], ..TrainConfig::default() };
        assert_eq!(Schedule::new(&late).learning_rate(1000), 2e-4);
    }

    #[test]
    fn loss_factor_rises_during_warm_up() {
        let schedule = Schedule::new(&TrainConfig::default());
        // Four batches an epoch, as in the golden tensors.
        let factors: Vec<f64> = (0..4).map(|batch| schedule.warm_up(0, batch, 4)).collect();
        assert_eq!(factors, [0.0, 0.25, 0.5, 0.75]);
        assert_eq!((schedule.warm_up(1, 0, 4), schedule.warm_up(29, 3, 4)), (1.0, 1.0));
        assert_eq!(
            [0, 1, 29].map(|epoch| schedule.negatives(epoch)),
            [Negatives::All, Negatives::Hardest, Negatives::Hardest]
        );

        let longer = Schedule::new(&TrainConfig { warmup_epochs: 2, ..TrainConfig::default() });
        assert_eq!([longer.warm_up(0, 2, 4), longer.warm_up(1, 0, 4), longer.warm_up(1, 3, 4)], [0.25, 0.5, 0.875]);
        assert_eq!(longer.negatives(1), Negatives::All);
        let none = Schedule::new(&TrainConfig { warmup_epochs: 0, ..TrainConfig::default() });
        assert_eq!((none.warm_up(0, 0, 4), none.negatives(0)), (1.0, Negatives::Hardest));
    }

    #[test]
    fn backbones_are_frozen_for_some_epochs_or_always() {
        let at_first = Schedule::new(&TrainConfig { frozen_epochs: 2, ..TrainConfig::default() });
        assert_eq!([0, 1, 2].map(|epoch| at_first.backbones_are_frozen(epoch)), [true, true, false]);
        assert_eq!(at_first.backbone_learning_rate(1), 0.0);
        assert!(at_first.backbone_learning_rate(2) > 0.0);
        let always = Schedule::new(&TrainConfig { freeze_backbones: true, ..TrainConfig::default() });
        assert!(always.backbones_are_frozen(1_000_000));
        assert!(!Schedule::new(&TrainConfig::default()).backbones_are_frozen(0));
    }
}
