//! ONNX for LAPS: graphs recorded from the model definitions, and the runtime that executes them.
//!
//! [`record`](record::record) runs a part of a model on a tensor that writes down what is done with it ([`graph`]);
//! [`passes`] fuse, lower and quantise; [`file`](mod@file) writes the ONNX file; [`package`] makes the folder that holds all
//! of an entry and says how far the graphs are from the model that they were made of. [`runtime`] is ONNX Runtime.

pub mod error;
pub mod file;
pub mod graph;
pub mod package;
pub mod passes;
pub mod protobuf;
pub mod record;
pub mod runtime;
pub mod structure;

pub use error::{Error, Result};
