//! The manifest of a package.

use std::collections::BTreeMap;

use laps_align::similarity::AlignmentConfig;
use laps_data::image::Preprocessing;
use laps_model::heads::{HeadConfig, HeadSizes};
use serde::{Deserialize, Serialize};

use super::{Drift, NodeDrift};
use crate::graph::{GraphPrecision, ValueInfo};

/// Name of the file.
pub(super) const MANIFEST_FILE: &str = "manifest.json";
/// Version of the format; it changes when the meaning of a field changes.
pub(super) const SCHEMA: u32 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackageManifest {
    /// Version of the format.
    pub schema: u32,
    /// Version of the program that wrote it.
    pub producer: String,
    /// Entry name.
    pub entry: String,
    /// SHA-256 of the entry's effective configuration.
    pub config_sha256: String,
    /// SHA-256 of the checkpoint.
    pub checkpoint_sha256: String,
    /// `portable` or `ort`.
    pub flavour: String,
    /// Whether the image encoder uses window attention, as Swin does.
    #[serde(default)]
    pub windowed: bool,
    /// Precision of the graphs.
    pub precision: GraphPrecision,
    /// Opset version.
    pub opset: u32,
    /// Image preprocessing.
    pub image: Preprocessing,
    /// Text preprocessing.
    pub text: TextPreprocessing,
    /// Graphs by name: `image`, `text`, `score`.
    pub graphs: BTreeMap<String, GraphFile>,
    /// Golden tensors.
    pub golden: FileEntry,
    /// The head.
    #[serde(default)]
    pub head: HeadConfig,
    /// Sizes and parameters of a head other than LAPS's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_file: Option<HeadFile>,
    /// Alignment parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentFile>,
    /// WordPiece vocabulary, if included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<FileEntry>,
    /// Settings of the tokenizer beside the vocabulary, if they are not the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_config: Option<FileEntry>,
}

/// Text preprocessing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPreprocessing {
    /// Tokenizer in words.
    pub tokenizer: String,
    /// Vocabulary size.
    pub vocabulary: usize,
    /// Largest number of tokens of a caption.
    pub longest: usize,
    /// Token id of padding, which comes last and has an attention mask of 0.
    pub padding: u32,
}

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
}

/// File of the alignment parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignmentFile {
    /// The file: `cross_net.aggr_net.*` as safetensors.
    #[serde(flatten)]
    pub file: FileEntry,
    /// Sizes of the alignment.
    pub sizes: AlignmentConfig,
}

/// Sizes of a head other than LAPS's, and the file of its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadFile {
    /// Sizes of the embeddings that the graphs of the encoders compute.
    pub sizes: HeadSizes,
    /// Sizes of the alignment that an ablation of LAPS changes; None for other heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentConfig>,
    /// The file, as safetensors; None for a head without parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<FileEntry>,
}

/// File of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphFile {
    /// File.
    #[serde(flatten)]
    pub file: FileEntry,
    /// Inputs in order.
    pub inputs: Vec<ValueInfoEntry>,
    /// Outputs.
    pub outputs: Vec<ValueInfoEntry>,
    /// Difference from the golden output in ONNX Runtime at export; None if ONNX Runtime was missing.
    pub drift: Option<Drift>,
    /// In int8 the products with constant matrices, the most sensitive first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<NodeDrift>,
}

/// Input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueInfoEntry {
    /// Name.
    pub name: String,
    /// ElementType type.
    #[serde(rename = "type")]
    pub element: String,
    /// Size of each axis; a symbol for a variable size.
    pub shape: Vec<String>,
}

impl PackageManifest {
    /// Flavour, precision and opset as text.
    pub fn description(&self) -> String {
        format!("{}, {}, opset {}", self.flavour, self.precision, self.opset)
    }
}

impl From<&ValueInfo> for ValueInfoEntry {
    fn from(port: &ValueInfo) -> Self {
        Self {
            name: port.name.clone(),
            element: port.element.name().to_owned(),
            shape: port.shape.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HeadFile;

    /// The manifests of packages that were exported before ablations could be.
    #[test]
    fn head_file_without_an_alignment_is_read_and_written_unchanged() {
        let text = r#"{"sizes":{"tokens":10,"has_class_token":true,"width":64,"word_width":64}}"#;
        let head: HeadFile = serde_json::from_str(text).unwrap();
        assert_eq!(head.alignment, None);
        assert_eq!(serde_json::to_string(&head).unwrap(), text);
    }
}
