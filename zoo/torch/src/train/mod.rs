//! Training on libtorch. Its tests run where `LAPS_ZOO_TEST_DEVICE` says; on a GPU it takes one.

mod adamw;
mod alignment_step;
mod error;
mod events;
mod features;
mod feed;
mod hinge;
mod learner;
mod log;
mod objective;
mod pairs;
mod precision;
mod run;
mod run_folder;
mod sampler;
mod samples;
mod schedule;
mod start;
mod state;
#[cfg(test)]
mod tests;
mod validate;
mod weights;

pub use self::{
    adamw::AdamW,
    alignment_step::{AlignmentStep, AlignmentWay},
    hinge::Hinge,
    learner::{Captions, Images, Learner, Pairs, StepOptions, Stepped},
    run::train,
    weights::{Group, Weights},
};
pub use self::{
    error::TrainError,
    events::EventFile,
    log::RunLog,
    run_folder::{Files, RunFolder},
    sampler::{EpochOrder, Sampler},
    schedule::{Negatives, Schedule},
};
