//! The description that an index file carries in its metadata.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use super::{IndexPrecision, SearchError, pool::Pooling};
use laps_align::similarity::AlignmentConfig;
use laps_data::image::Preprocessing;

/// Version of the file format. It changes when the meaning of a field or tensor changes.
pub(super) const SCHEMA: u32 = 1;

/// What an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexKind {
    /// Images, searched by text.
    Images,
    /// Captions, searched by image.
    Captions,
}

impl fmt::Display for IndexKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Captions => "captions",
        })
    }
}

/// The model and engine that computed embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUsed {
    /// Name of the entry.
    pub entry: String,
    /// SHA-256 of the effective configuration of the entry.
    pub config_sha256: String,
    /// SHA-256 of the checkpoint.
    pub checkpoint_sha256: String,
    /// The engine and, if it ran ONNX graphs, which ones.
    pub engine: String,
}

/// Description of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexDescription {
    /// Version of the file format.
    pub schema: u32,
    /// Name and version of the program that wrote the file.
    pub producer: String,
    /// What the index holds.
    pub kind: IndexKind,
    /// The model that computed the embeddings.
    #[serde(flatten)]
    pub model: ModelUsed,
    /// Image preprocessing.
    pub image: Preprocessing,
    /// Tokens of an image, including the class token.
    pub tokens: usize,
    /// Whether the first token of an image is the class token.
    pub class_token: bool,
    /// Embedding dim.
    pub width: usize,
    /// Precision of the stored embeddings.
    pub precision: IndexPrecision,
    /// Folder of the images, or file of the captions.
    pub source: String,
}

impl IndexDescription {
    /// Describes a new index of embeddings with these sizes.
    pub fn new(
        kind: IndexKind,
        model: ModelUsed,
        image: Preprocessing,
        sizes: &AlignmentConfig,
        precision: IndexPrecision,
    ) -> Self {
        Self {
            schema: SCHEMA,
            producer: format!("laps-zoo {}", env!("CARGO_PKG_VERSION")),
            kind,
            model,
            image,
            tokens: sizes.tokens(),
            class_token: sizes.has_class_token,
            width: sizes.width,
            precision,
            source: String::new(),
        }
    }

    /// How embeddings of `kind` are pooled.
    pub(super) fn pooling(&self, kind: IndexKind) -> Pooling {
        match kind {
            IndexKind::Images if self.class_token => Pooling::ClassTokenAndMean,
            IndexKind::Images | IndexKind::Captions => Pooling::Mean,
        }
    }

    /// Checks that the index at `path` was written by `model`: same configuration and checkpoint.
    ///
    /// # Errors
    /// [`SearchError::OtherModel`].
    pub fn check_model(&self, path: &Path, model: &ModelUsed) -> Result<(), SearchError> {
        let pairs = [
            ("configuration", &model.config_sha256, &self.model.config_sha256),
            ("checkpoint", &model.checkpoint_sha256, &self.model.checkpoint_sha256),
        ];
        for (what, expected, found) in pairs {
            if expected != found {
                return Err(SearchError::OtherModel {
                    path: path.to_owned(),
                    what,
                    expected: format!("`{}`, {what} with sha256 {expected}", model.entry),
                    found: format!("`{}`, {what} with sha256 {found}", self.model.entry),
                });
            }
        }
        Ok(())
    }

    /// Checks that the index at `path` holds `expected`.
    ///
    /// # Errors
    /// [`SearchError::Kind`].
    pub fn check_kind(&self, path: &Path, expected: IndexKind) -> Result<(), SearchError> {
        if self.kind != expected {
            return Err(SearchError::Kind { path: path.to_owned(), expected, found: self.kind });
        }
        Ok(())
    }

    /// Whether embeddings can be copied from one index to the other: everything but the producer is equal.
    pub(super) fn has_same_embeddings(&self, other: &Self) -> bool {
        Self { producer: other.producer.clone(), ..self.clone() } == *other
    }
}

/// One image or caption of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexItem {
    /// The image's path relative to the folder, or the caption.
    pub name: String,
    /// Size of the image file and its modification time in nanoseconds since 1970. An update of the index does not encode
    /// an image again if its stamp is unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<(u64, u64)>,
}
