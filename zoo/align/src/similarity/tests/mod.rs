//! The engine against the reference tensors, against its definition in f64, and against itself.

mod definition;
mod golden;
mod matrix_files;
mod measuring;
mod plans;
mod random;
pub(crate) mod samples;
mod selecting;
