//! Training on libtorch. Tested on the CPU; not yet run on a GPU.

mod adamw;
mod alignment;
mod captions;
mod hinge;
mod learner;
mod objective;
mod precision;
mod weights;

pub use self::{
    adamw::AdamW,
    hinge::{Hinge, Negatives},
    learner::{Captions, Images, Learner, Pairs, StepOptions, Stepped},
    precision::Precision,
    weights::{Group, Weights},
};
