//! Training on libtorch.
//!
//! [`train()`] runs a whole recipe: it reads the data, trains, validates after each epoch, and writes checkpoints, the state
//! to resume from, a JSON log and TensorBoard events into the run folder ([`RunFiles`]). A [`Learner`] makes single steps.
//!
//! Tests run on the device of `LAPS_ZOO_TEST_DEVICE`.

mod adamw;
mod batches;
mod config_hash;
mod distribution;
mod error;
mod events;
mod features;
mod gradient_buckets;
mod hinge;
mod initial_weights;
mod learner;
mod log;
mod objective;
mod precision;
mod run;
mod run_folder;
mod sampler;
mod schedule;
mod split;
mod state;
#[cfg(test)]
mod tests;
mod validate;
mod weights;

use self::{adamw::AdamW, run_folder::RunFolder};
pub use self::{
    error::TrainError,
    hinge::HingeLoss,
    learner::{CaptionInputs, ImageInputs, Learner, PairBatch, StepOptions, StepOutcome},
    run::train,
    run_folder::RunFiles,
    schedule::Negatives,
    weights::{ParamGroup, Weights},
};
pub(crate) use self::{
    learner::alignment_inputs,
    objective::{BatchEmbeddings, Objective},
    weights::download,
};
