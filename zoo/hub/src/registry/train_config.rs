//! Section `train` of an entry: the training recipe.

use std::fmt;

use serde::{Deserialize, Serialize};

use laps_model::{Error, Result};

/// Largest integer of a recipe; anything above it is a typing error.
const MAX_INTEGER: usize = 1 << 30;

/// Section `train`. Defaults are the authors' recipe. Epochs and steps are counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Epochs over the captions. At least 1.
    pub epochs: usize,
    /// Captions, each with its image, that form one loss. At least 2, because a caption needs a negative.
    pub batch_size: usize,
    /// Consecutive images of the split that go into a batch together, each with one of its captions. The more similar
    /// neighbours are, the harder the negatives. At least 1, which shuffles single captions.
    pub neighbours: usize,
    /// Batches whose gradients are summed for one optimizer step, before clipping. At least 1. Negatives come from the same
    /// batch, so this is not equivalent to a larger batch. The logged loss is the mean over the batches.
    pub accumulate: usize,
    /// Learning rate of the projections and the alignment.
    pub learning_rate: f64,
    /// Learning rate of the two backbones relative to `learning_rate`.
    pub backbone_lr_ratio: f64,
    /// Epochs before which the learning rates are multiplied by `decay_rate`, in ascending order.
    pub decay_epochs: Vec<usize>,
    /// See `decay_epochs`; more than 0 and at most 1.
    pub decay_rate: f64,
    /// Weight decay of AdamW, on every parameter.
    pub weight_decay: f64,
    /// Margin of the hinge loss.
    pub margin: f64,
    /// Weight of the squared difference between the ratio of kept patches and `sparse_ratio`.
    pub ratio_weight: f64,
    /// Maximum norm of all gradients; larger gradients are scaled down to it.
    pub grad_clip: f64,
    /// Warm-up epochs, with all negatives and a loss that is scaled up from 0. Later only the hardest negatives count.
    pub warmup_epochs: usize,
    /// Whether both backbones are frozen, and run without dropout and drop path.
    pub freeze_backbones: bool,
    /// First epochs in which the backbones are frozen in any case.
    pub frozen_epochs: usize,
    /// Dropout of BERT for hidden states and attention.
    pub dropout: f64,
    /// Drop path of the last block of Swin; it increases linearly from 0.
    pub drop_path: f64,
    /// Whether images are randomly cropped and mirrored.
    pub image_augmentation: bool,
    /// Whether words are randomly masked, replaced and dropped.
    pub text_augmentation: bool,
    /// Precision of the forward and backward passes; weights are always f32.
    pub precision: TrainPrecision,
    /// Optimizer steps between two saved states. At least 1.
    pub save_every: usize,
    /// The split whose rSum selects the best epoch.
    pub select_on: Validation,
    /// Random seed.
    pub seed: u64,
}

/// Precision of the forward and backward passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainPrecision {
    /// IEEE single precision.
    F32,
    /// bfloat16: 16 bits with the exponent of f32.
    Bf16,
    /// IEEE half precision, with loss scaling.
    Fp16,
}

/// The split that selects the best epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// The validation split; the test split stays unseen.
    Dev,
    /// The test split, as in the released code. The best epoch is then selected by the numbers that are reported.
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
            precision: TrainPrecision::F32,
            save_every: 1000,
            select_on: Validation::Dev,
            seed: 0,
        }
    }
}

impl TrainConfig {
    /// Checks that training can run with these values. The key of an error is relative to the section.
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
    if (least..=MAX_INTEGER).contains(&value) {
        return Ok(());
    }
    Err(refused(key, &format!("at least {least} and at most {MAX_INTEGER}"), value))
}

fn number(key: &str, value: f64, expected: &str, allowed: impl Fn(f64) -> bool) -> Result<()> {
    if value.is_finite() && allowed(value) { Ok(()) } else { Err(refused(key, expected, value)) }
}

fn refused(key: &str, expected: &str, found: impl fmt::Display) -> Error {
    Error::Config { key: key.to_owned(), expected: expected.to_owned(), found: found.to_string(), hint: None }
}
