//! Measures of the gate that need graphs or separate processes.

mod drift;
mod evaluations;
mod graphs;

pub(crate) use drift::drift;
pub(crate) use evaluations::evaluations;
pub(crate) use graphs::{graphs, has_graphs};
