//! The recipe: section `train` of an entry.

use std::fmt;

use serde::{Deserialize, Serialize};

use laps_model::{Error, Result};

/// No whole number of a recipe is larger: anything above it is a typing error.
const LARGEST: usize = 1 << 30;

/// Section `train`. What is left out is the authors' recipe. Epochs and steps are counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the captions. At least 1.
    pub epochs: usize,
    /// Captions, each with its image, whose similarities make one loss. At least 2: a caption needs a negative.
    pub batch_size: usize,
    /// Images that follow one another in the split and come into one batch, each with one of its captions: negatives are
    /// as hard as neighbours are alike. At least 1, which lets each caption go by itself.
    pub neighbours: usize,
    /// Batches whose gradients are added up for one step of the optimizer. At least 1. As the loss of a batch is a sum over
    /// its pairs, so is that of several, before clipping; negatives are of the own batch, so that this is not the same as a
    /// larger one. The loss in logs is the mean of the batches.
    pub accumulate: usize,
    /// Learning rate of the projections and of the alignment.
    pub learning_rate: f64,
    /// Learning rate of the two backbones, as a share of `learning_rate`.
    pub backbone_lr_ratio: f64,
    /// Epochs before which the learning rates are multiplied by `decay_rate`, in ascending order.
    pub decay_epochs: Vec<usize>,
    /// See `decay_epochs`; more than 0 and at most 1.
    pub decay_rate: f64,
    /// Weight decay of AdamW, on every parameter.
    pub weight_decay: f64,
    /// Margin of the hinge loss.
    pub margin: f64,
    /// Weight of the squared difference between the share of patches that is kept and `sparse_ratio`.
    pub ratio_weight: f64,
    /// Largest norm of all gradients together; larger ones are scaled down to it.
    pub grad_clip: f64,
    /// First epochs, in which all negatives count and the loss is scaled up from 0; after them only the hardest count.
    pub warmup_epochs: usize,
    /// Whether both backbones keep their weights, and run without dropout and drop path.
    pub freeze_backbones: bool,
    /// First epochs in which the backbones keep their weights all the same.
    pub frozen_epochs: usize,
    /// Dropout of BERT, of hidden states and of attention.
    pub dropout: f64,
    /// Drop path of the last block of Swin; it rises from 0 in equal steps.
    pub drop_path: f64,
    /// Whether images are cropped at random and mirrored.
    pub image_augmentation: bool,
    /// Whether words are masked, replaced and left out at random.
    pub text_augmentation: bool,
    /// What the forward and backward passes are computed in; weights are f32 always.
    pub precision: Precision,
    /// Steps of the optimizer between two writings of the state. At least 1.
    pub save_every: usize,
    /// The split whose rSum chooses the best epoch.
    pub select_on: Validation,
    /// Where all randomness starts from.
    pub seed: u64,
}

/// What the passes are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of 32.
    Bf16,
    /// 16 bits of IEEE 754, with a scaled loss.
    Fp16,
}

/// The split that the best epoch is chosen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// The validation split: the test split stays unseen.
    Dev,
    /// The test split, as the released code does: its figures are then chosen by what they report.
    Test,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch_size: 64,
            neighbours: 1,
            accumulate: 1,
            learning_rate: 2e-4,
            backbone_lr_ratio: 0.1,
            decay_epochs: vec![9, 15, 20, 25],
            decay_rate: 0.3,
            weight_decay: 1e-4,
            margin: 0.2,
            ratio_weight: 2.0,
            grad_clip: 2.0,
            warmup_epochs: 1,
            freeze_backbones: false,
            frozen_epochs: 0,
            dropout: 0.1,
            drop_path: 0.1,
            image_augmentation: true,
            text_augmentation: true,
            precision: Precision::F32,
            save_every: 1000,
            select_on: Validation::Dev,
            seed: 0,
        }
    }
}

impl TrainConfig {
    /// Refuses values that no training can be done with; the key of the error is that of the section.
    pub(crate) fn check(&self) -> Result<()> {
        whole("epochs", self.epochs, 1)?;
        whole("batch_size", self.batch_size, 2)?;
        whole("neighbours", self.neighbours, 1)?;
        whole("accumulate", self.accumulate, 1)?;
        whole("warmup_epochs", self.warmup_epochs, 0)?;
        whole("frozen_epochs", self.frozen_epochs, 0)?;
        whole("save_every", self.save_every, 1)?;
        number("learning_rate", self.learning_rate, "more than 0 and at most 1", |x| x > 0.0 && x <= 1.0)?;
        number("decay_rate", self.decay_rate, "more than 0 and at most 1", |x| x > 0.0 && x <= 1.0)?;
        number("grad_clip", self.grad_clip, "more than 0", |x| x > 0.0)?;
        number("weight_decay", self.weight_decay, "at least 0 and less than 1", |x| (0.0..1.0).contains(&x))?;
        number("dropout", self.dropout, "at least 0 and less than 1", |x| (0.0..1.0).contains(&x))?;
        number("drop_path", self.drop_path, "at least 0 and less than 1", |x| (0.0..1.0).contains(&x))?;
        for (key, value) in [
            ("backbone_lr_ratio", self.backbone_lr_ratio),
            ("margin", self.margin),
            ("ratio_weight", self.ratio_weight),
        ] {
            number(key, value, "at least 0", |x| x >= 0.0)?;
        }
        if !self.decay_epochs.is_sorted_by(|before, after| before < after) {
            let found = format!("{:?}", self.decay_epochs);
            return Err(refused("decay_epochs", "epochs in ascending order, each once", found));
        }
        Ok(())
    }
}

fn whole(key: &str, value: usize, least: usize) -> Result<()> {
    if (least..=LARGEST).contains(&value) {
        return Ok(());
    }
    Err(refused(key, &format!("at least {least} and at most {LARGEST}"), value))
}

fn number(key: &str, value: f64, expected: &str, allowed: impl Fn(f64) -> bool) -> Result<()> {
    if value.is_finite() && allowed(value) { Ok(()) } else { Err(refused(key, expected, value)) }
}

fn refused(key: &str, expected: &str, found: impl fmt::Display) -> Error {
    Error::Config { key: key.to_owned(), expected: expected.to_owned(), found: found.to_string() }
}
