//! The messages of an ONNX file.
//!
//! `onnx.rs` is what `prost-build` makes of `export/proto/onnx.proto3`, which is the file of the ONNX project, version
//! 1.23.2, unchanged. It is committed and not made by a build script: the compiler of `.proto` files and what it depends
//! on take longer to build than the rest of this crate.

#[rustfmt::skip]
#[allow(missing_docs, clippy::all, reason = "generated")]
mod onnx;

pub use onnx::*;
