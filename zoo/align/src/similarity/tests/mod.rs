//! Tests of the engine: golden tensors, the definition in f64, and invariances.

mod ablations;
mod definition;
mod golden;
mod matrix_files;
mod measuring;
mod plans;
mod random;
pub(crate) mod samples;
mod selecting;
