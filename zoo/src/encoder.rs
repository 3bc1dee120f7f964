//! The seam between retrieval and whatever computes embeddings.

use crate::{Result, array::Array};

/// Computes embeddings of images and captions in the joint space. libtorch, the pure-Rust tensor and ONNX Runtime
/// sessions are behind it.
pub trait Encoder {
    /// Pixels `(batch, 3, size, size)`, normalised, to patch embeddings `(batch, patches, width)`, the class token first
    /// where the model has one.
    fn encode_images(&self, pixels: &Array) -> Result<Array>;

    /// Token identifiers of each caption, not padded, to word embeddings `(words, width)` of each.
    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>>;
}
