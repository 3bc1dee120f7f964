//! What the gate measures of graphs, and in processes of their own.

mod drift;
mod evaluations;
mod graphs;

pub(crate) use drift::drift;
pub(crate) use evaluations::evaluations;
pub(crate) use graphs::graphs;
