//! Section `train` of an entry.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How an entry is trained. What is left out is as in the authors' recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Times that every caption is seen.
    pub epochs: usize,
    /// Captions of a step, each with its image. The last ones of an epoch that fill no batch are left out.
    pub batch_size: usize,
    /// Learning rate of the projections and the alignment.
    pub learning_rate: f64,
    /// Learning rate of the backbones as a share of it.
    pub backbone_lr_ratio: f64,
    /// Epochs, counted from 0, from which on the learning rates are multiplied by `decay_rate` once more.
    pub decay_epochs: Vec<usize>,
    /// See `decay_epochs`.
    pub decay_rate: f64,
    /// Weight decay of every weight.
    pub weight_decay: f64,
    /// Margin of the hinge loss.
    pub margin: f64,
    /// Largest norm of the gradient of all weights.
    pub grad_clip: f64,
    /// Epochs in which all negatives count and the loss is warmed up; afterwards the hardest count.
    pub warmup_epochs: usize,
    /// Parts that a batch is cut into, each with a loss of its own; their gradients are averaged.
    pub accumulate: usize,
    /// Whether the backbones stay as they are.
    pub freeze_backbones: bool,
    /// Epochs at the beginning in which the backbones stay as they are.
    pub frozen_epochs: usize,
    /// Dropout of the text encoder, where it trains.
    pub dropout: f64,
    /// Drop path of the last Swin block, where it trains.
    pub drop_path: f64,
    /// What is done to images and captions while training.
    pub augmentation: Augmentation,
    /// What the encoders compute in: `f32`, `bf16` or `fp16`.
    pub precision: String,
    /// Steps after which the state is saved; it is saved after every epoch anyway.
    pub save_every: usize,
}

/// What is done to images and captions while training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// Nothing.
    None,
    /// Images are cropped and mirrored at random, tokens are masked, replaced and dropped at random.
    Full,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch_size: 64,
            learning_rate: 2e-4,
            backbone_lr_ratio: 0.1,
            decay_epochs: vec![9, 15, 20, 25],
            decay_rate: 0.3,
            weight_decay: 1e-4,
            margin: 0.2,
            grad_clip: 2.0,
            warmup_epochs: 1,
            accumulate: 1,
            freeze_backbones: false,
            frozen_epochs: 0,
            dropout: 0.1,
            drop_path: 0.1,
            augmentation: Augmentation::Full,
            precision: "f32".to_owned(),
            save_every: 500,
        }
    }
}

impl TrainConfig {
    /// Checks that every number is in its range.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("accumulate", self.accumulate),
            ("save_every", self.save_every),
        ];
        for (key, value) in counts {
            if value == 0 {
                return Err(refuse(key, "at least 1", value));
            }
        }
        if self.batch_size < 2 * self.accumulate || !self.batch_size.is_multiple_of(self.accumulate) {
            let expected = format!("a divisor of the {} captions of a batch that leaves at least 2", self.batch_size);
            return Err(refuse("accumulate", &expected, self.accumulate));
        }
        let positive = [("learning_rate", self.learning_rate), ("margin", self.margin), ("grad_clip", self.grad_clip)];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(refuse(key, "a number above 0", value));
            }
        }
        let others = [
            ("backbone_lr_ratio", self.backbone_lr_ratio),
            ("decay_rate", self.decay_rate),
            ("weight_decay", self.weight_decay),
        ];
        for (key, value) in others {
            if !(value.is_finite() && value >= 0.0) {
                return Err(refuse(key, "a number from 0", value));
            }
        }
        for (key, value) in [("dropout", self.dropout), ("drop_path", self.drop_path)] {
            if !(0.0..1.0).contains(&value) {
                return Err(refuse(key, "a share from 0 to below 1", value));
            }
        }
        if !["f32", "bf16", "fp16"].contains(&self.precision.as_str()) {
            return Err(refuse("precision", "`f32`, `bf16` or `fp16`", &self.precision));
        }
        Ok(())
    }

    /// Learning rates of heads and backbones in `epoch`, counted from 0.
    pub fn rates(&self, epoch: usize) -> [f64; 2] {
        let decays = self.decay_epochs.iter().filter(|&&from| from <= epoch).count();
        let rate = self.learning_rate * self.decay_rate.powf(decays as f64);
        [rate, rate * self.backbone_lr_ratio]
    }

    /// Whether the backbones stay as they are in `epoch`.
    pub fn is_frozen(&self, epoch: usize) -> bool {
        self.freeze_backbones || epoch < self.frozen_epochs
    }

    /// Whether all negatives count in `epoch`, and the factor of the loss at `step` of `steps`: it rises from 0 within
    /// epoch 0.
    pub fn warm_up(&self, epoch: usize, step: usize, steps: usize) -> (bool, f64) {
        let weight = if epoch == 0 && self.warmup_epochs > 0 { step as f64 / steps.max(1) as f64 } else { 1.0 };
        (epoch < self.warmup_epochs, weight)
    }
}

fn refuse(key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::Config { key: format!("train.{key}"), expected: expected.to_owned(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::TrainConfig;

    #[test]
    fn the_default_is_the_recipe() {
        let config = TrainConfig::default();
        config.check().unwrap();
        assert_eq!(config.rates(0), [2e-4, 2e-4 * 0.1]);
        assert_eq!(config.rates(8), config.rates(0));
        assert!((config.rates(25)[0] / (2e-4 * 0.3f64.powi(4)) - 1.0).abs() < 1e-12);
        assert_eq!(config.warm_up(0, 30, 120), (true, 0.25));
        assert_eq!(config.warm_up(1, 30, 120), (false, 1.0));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let message = |config: TrainConfig| config.check().unwrap_err().to_string();
        assert!(message(TrainConfig { epochs: 0, ..Default::default() }).contains("train.epochs"));
        assert!(message(TrainConfig { margin: f64::NAN, ..Default::default() }).contains("train.margin"));
        assert!(message(TrainConfig { dropout: 1.0, ..Default::default() }).contains("train.dropout"));
        assert!(message(TrainConfig { accumulate: 3, ..Default::default() }).contains("train.accumulate"));
        assert!(message(TrainConfig { precision: "f8".to_owned(), ..Default::default() }).contains("train.precision"));
    }
}
