//! The folder of an exported entry: its graphs, a manifest with their hashes, and tensors to compare with.
//!
//! ```text
//! image.onnx  text.onnx  score.onnx   the graphs
//! manifest.json                       what they are of, their hashes, inputs and outputs
//! golden.safetensors                  inputs, and what the model definition makes of them
//! alignment.safetensors  vocab.txt    what a product needs beside the encoders
//! ```

mod calibration;
mod drift;
mod fault;
mod golden;
mod manifest;
mod open;
mod precision;
mod product;
mod render;
mod selection;
mod write;

pub use drift::{Drift, Tolerance};
pub use fault::at_fault;
pub use golden::{Golden, Sample};
pub use manifest::{FileEntry, GraphFile, Manifest, PortEntry, SCHEMA, TextPreprocessing};
pub use open::Package;
pub use precision::Precision;
pub use product::AlignmentFile;
pub use render::render;
pub use selection::NodeDrift;
pub use write::{Exported, Request, check_free, export, graph, write_encoders};
