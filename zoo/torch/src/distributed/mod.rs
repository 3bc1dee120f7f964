//! Process groups: collective operations on libtorch's own c10d, without Python.
//!
//! A [`Collective`] joins the group that torchrun, PyTorchJob or `laps-zoo launch` describes ([`laps::ProcessGroup`]). All
//! ranks call the same operations in the same order. A group of one does nothing and needs no store, unless it
//! names its backend.

mod collective;
mod error;
mod raw_group;
mod raw_sum;

#[cfg(test)]
#[allow(dead_code, reason = "helpers of the integration tests")]
#[path = "../../tests/ranks/mod.rs"]
pub(crate) mod ranks;

pub use self::{collective::Collective, error::DistributedError};
pub(crate) use self::{
    collective::GradientSum,
    raw_sum::{SummedWeight, run_backward_early},
};
