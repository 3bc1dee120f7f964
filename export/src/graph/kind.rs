//! The graphs of a model.

use std::fmt;

/// A graph of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GraphKind {
    /// `pixel_values` `(batch, 3, size, size)` to `patch_embeddings` `(batch, tokens, width)`.
    Image,
    /// `input_ids` and `attention_mask` `(batch, length)` to `word_embeddings` `(batch, length, width)`.
    Text,
    /// `patch_embeddings` `(images, tokens, width)`, `word_embeddings` `(captions, words, width)` and `lengths` `(captions)`
    /// to `similarities` `(images, captions)`.
    Score,
}

impl GraphKind {
    /// All graphs.
    pub const ALL: [Self; 3] = [Self::Image, Self::Text, Self::Score];

    /// Name of the graph: `image`, `text` or `score`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Score => "score",
        }
    }

    /// Name of the ONNX file.
    pub fn file(self) -> String {
        format!("{}.onnx", self.name())
    }
}

impl fmt::Display for GraphKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
