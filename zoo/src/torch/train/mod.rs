//! Training on libtorch. Its tests run where `LAPS_ZOO_TEST_DEVICE` says; on a GPU it takes one.

mod adamw;
mod alignment_step;
mod features;
mod feed;
mod hinge;
mod learner;
mod objective;
mod pairs;
mod precision;
mod run;
mod samples;
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
    run::{Request, Trained, train},
    start::Start,
    weights::{Group, Weights},
};
