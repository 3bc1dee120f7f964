//! What an index says of itself.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use super::{FirstRow, Precision, SearchError};
use laps_align::similarity::AlignmentConfig;
use laps_data::image::Preprocessing;

/// Version of the file; it changes when the meaning of a part does.
pub(super) const SCHEMA: u32 = 1;

/// What is in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Images, found by texts.
    Images,
    /// Captions, found by images.
    Captions,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Captions => "captions",
        })
    }
}

/// What decides which embeddings come out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUsed {
    /// Name of the entry.
    pub entry: String,
    /// SHA-256 of the effective configuration of the entry.
    pub config_sha256: String,
    /// SHA-256 of the checkpoint.
    pub checkpoint_sha256: String,
    /// The engine and, where it ran any, its graphs.
    pub engine: String,
}

/// What an index says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the file.
    pub schema: u32,
    /// Version of the program that wrote it.
    pub producer: String,
    /// What is in it.
    pub kind: Kind,
    /// What made the embeddings.
    #[serde(flatten)]
    pub model: ModelUsed,
    /// What was done to an image before it was encoded.
    pub image: Preprocessing,
    /// Tokens of an image, the class token among them.
    pub tokens: usize,
    /// Whether the first token of an image is the class token.
    pub class_token: bool,
    /// Width of an embedding.
    pub width: usize,
    /// In which numbers the embeddings are stored.
    pub precision: Precision,
    /// The folder of the images, or the file of the captions.
    pub source: String,
}

impl Description {
    /// Of a new index of embeddings with these sizes.
    pub fn new(
        kind: Kind,
        model: ModelUsed,
        (image, sizes): (Preprocessing, &AlignmentConfig),
        precision: Precision,
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

    /// What the first row of embeddings of this kind is.
    pub(super) fn first_row(&self, kind: Kind) -> FirstRow {
        match kind {
            Kind::Images if self.class_token => FirstRow::ClassToken,
            Kind::Images | Kind::Captions => FirstRow::Plain,
        }
    }

    /// Sees that the index at `path` is one of `model`, by configuration and checkpoint.
    ///
    /// # Errors
    /// [`SearchError::OtherModel`].
    pub fn check_model(&self, path: &Path, model: &ModelUsed) -> Result<(), SearchError> {
        let pairs = [
            ("configuration", &model.config_sha256, &self.model.config_sha256),
            ("checkpoint", &model.checkpoint_sha256, &self.model.checkpoint_sha256),
        ];
        for (what, wanted, own) in pairs {
            if wanted != own {
                return Err(SearchError::OtherModel {
                    path: path.to_owned(),
                    what,
                    expected: format!("`{}`, {what} with sha256 {wanted}", model.entry),
                    found: format!("`{}`, {what} with sha256 {own}", self.model.entry),
                });
            }
        }
        Ok(())
    }

    /// Sees that the index at `path` holds what is needed.
    ///
    /// # Errors
    /// [`SearchError::Kind`].
    pub fn check_kind(&self, path: &Path, expected: Kind) -> Result<(), SearchError> {
        if self.kind != expected {
            return Err(SearchError::Kind { path: path.to_owned(), expected, found: self.kind });
        }
        Ok(())
    }

    /// Whether embeddings of the one can be taken over into the other.
    pub(super) fn has_same_embeddings(&self, other: &Self) -> bool {
        Self { producer: other.producer.clone(), ..self.clone() } == *other
    }
}

/// One image or caption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Path of the image, relative to the folder, or the caption.
    pub name: String,
    /// Size of the file and when it was modified, in nanoseconds since 1970: an image whose stamp is the same is not
    /// encoded again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<(u64, u64)>,
}
