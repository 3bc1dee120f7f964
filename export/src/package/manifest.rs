//! What a folder of graphs says of itself.

use std::collections::BTreeMap;

use laps_data::image::Preprocessing;
use serde::{Deserialize, Serialize};

use super::{AlignmentFile, Drift, NodeDrift, Precision};
use crate::graph::Port;

/// Version of this structure; it changes when the meaning of a field does.
pub const SCHEMA: u32 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the program that wrote it.
    pub producer: String,
    /// Name of the entry.
    pub entry: String,
    /// SHA-256 of the effective configuration of the entry.
    pub config_sha256: String,
    /// SHA-256 of the checkpoint.
    pub checkpoint_sha256: String,
    /// `portable` or `ort`.
    pub flavour: String,
    /// Whether images are attended to in windows, as Swin does.
    #[serde(default)]
    pub windowed: bool,
    /// In which numbers the graphs compute.
    pub precision: Precision,
    /// Version of the standard operators.
    pub opset: u32,
    /// What is done to an image before it is fed.
    pub image: Preprocessing,
    /// What is done to a caption before it is fed.
    pub text: TextPreprocessing,
    /// The graphs, by the name of the part.
    pub graphs: BTreeMap<String, GraphFile>,
    /// The tensors to compare with.
    pub golden: FileEntry,
    /// The alignment without a graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentFile>,
    /// The WordPiece vocabulary, where it was at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<FileEntry>,
}

/// What is done to a caption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPreprocessing {
    /// The kind of tokens.
    pub tokenizer: String,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Longest caption in tokens.
    pub longest: usize,
    /// Identifier of padding, which stands at the end and where the mask is 0.
    pub padding: u32,
}

/// A file beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// A graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphFile {
    /// The file.
    #[serde(flatten)]
    pub file: FileEntry,
    /// What it is fed, in order.
    pub inputs: Vec<PortEntry>,
    /// What it gives.
    pub outputs: Vec<PortEntry>,
    /// How far its output was from the golden one in ONNX Runtime when it was written; None where that was not there.
    pub drift: Option<Drift>,
    /// In int8 its products with constant matrices, the most sensitive first, and which were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<NodeDrift>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortEntry {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    #[serde(rename = "type")]
    pub element: String,
    /// Size of each axis; a symbol where it may be any.
    pub shape: Vec<String>,
}

impl Manifest {
    /// Flavour, precision and version of the operators, in words.
    pub fn description(&self) -> String {
        format!("{}, {}, opset {}", self.flavour, self.precision, self.opset)
    }
}

impl From<&Port> for PortEntry {
    fn from(port: &Port) -> Self {
        Self {
            name: port.name.clone(),
            element: port.element.name().to_owned(),
            shape: port.shape.iter().map(ToString::to_string).collect(),
        }
    }
}
