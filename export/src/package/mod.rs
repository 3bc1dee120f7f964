//! The folder of an exported entry: graphs, a manifest with their hashes, and golden tensors.
//!
//! ```text
//! image.onnx  text.onnx  score.onnx   graphs
//! manifest.json                       entry, hashes, inputs and outputs
//! golden.safetensors                  inputs, and the outputs of the model definition
//! alignment.safetensors  vocab.txt    what else is needed to search with the encoders; of other heads than LAPS's, those
//!                                     with parameters have `head.safetensors`
//! ```
//!
//! [`export`] writes a package and compares its graphs with the model; [`Package::open`] verifies and reads one.
//! [`GraphCache`] has graphs that were exported for a session and optimised by ONNX Runtime.

mod alignment;
mod cache;
mod calibration;
mod drift;
mod files;
mod golden;
mod manifest;
mod open;
mod render;
mod sensitivity;
mod worst_nodes;
mod write;

pub use cache::{CachedGraphs, GraphCache, PendingGraphs};
pub use drift::{Drift, NodeDrift, Tolerance};
pub use manifest::{AlignmentFile, FileEntry, GraphFile, HeadFile, PackageManifest, TextPreprocessing, ValueInfoEntry};
pub use open::Package;
pub use render::render;
pub use worst_nodes::worst_nodes;
pub use write::{
    ExportRequest, Exported, build_graph, check_free, describe_encoders, encode_graph, export, write_encoders,
};
