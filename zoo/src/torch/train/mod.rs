//! Training on libtorch. Tested on the CPU; not yet run on a GPU.

mod adamw;
mod alignment;
mod alignment_step;
mod captions;
mod features;
mod feed;
mod hinge;
mod learner;
mod objective;
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
