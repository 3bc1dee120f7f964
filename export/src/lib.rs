//! ONNX for LAPS: records the model definitions as ONNX graphs, exports them, and runs them in ONNX Runtime.
//!
//! From the model definition to embeddings:
//!
//! 1. [`record::record`] runs the image encoder, the text encoder or the similarity of a model on a tensor that writes
//!    down every operation ([`graph::GraphTensor`]). The result is a [`graph::Graph`] with symbolic sizes.
//! 2. [`passes`] fuse operators, lower them to an opset, and convert the graph to fp16 or int8.
//! 3. [`file::write`] encodes the graph as an ONNX file; [`size`] counts its nodes, bytes and multiply-adds.
//! 4. [`package::export`] does all of this for an entry. It writes a folder with the graphs, a manifest and golden tensors,
//!    and compares the graphs with the model.
//! 5. [`runtime`] finds the library of ONNX Runtime and runs graphs: [`runtime::Session`] one of them,
//!    [`runtime::OrtEncoder`] both encoders.
//!
//! # Example
//!
//! Record the image encoder of a small model and look at the graph. The parameters are zeros here; an export reads them
//! from a checkpoint.
//!
//! ```
//! use laps_hub::registry;
//! use laps_model::array::Array;
//! use laps_onnx::{
//!     graph::{GraphKind, Target},
//!     record::record,
//!     size::GraphSize,
//! };
//!
//! let config = registry::find("shapes_vit")?.model;
//! let graph = record(GraphKind::Image, &config, Target::default(), |parameter| {
//!     Array::new(&parameter.shape, vec![0.0; parameter.elements()])
//! })?;
//!
//! assert_eq!(graph.inputs()[0].name, "pixel_values");
//! assert_eq!(format!("{:?}", graph.outputs()[0].shape), "[batch, 37, 64]");
//! // One softmax in each of the three blocks.
//! assert_eq!(graph.nodes().iter().filter(|node| node.is("Softmax")).count(), 3);
//! assert_eq!(GraphSize::of(&graph).nodes, graph.nodes().len());
//! # Ok::<(), laps_onnx::Error>(())
//! ```

pub mod error;
pub mod file;
pub mod graph;
pub mod package;
pub mod passes;
pub mod protobuf;
pub mod record;
pub mod runtime;
pub mod size;

pub use error::{Error, Result};
