//! Process groups: collective operations on libtorch's own c10d, without Python.
//!
//! A [`Collective`] joins the group that torchrun, PyTorchJob or `laps-zoo launch` describes ([`laps::ProcessGroup`]). All
//! ranks call the same operations in the same order. A group of one does nothing and needs no store.

mod collective;
mod error;
mod raw_group;

pub use self::{collective::Collective, error::DistributedError};
