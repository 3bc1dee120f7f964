//! ONNX for LAPS: the runtime that executes it.

pub mod runtime;
