//! Requests and answers.

use laps::EngineUsed;
use laps_search::{IndexKind, ModelUsed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Maximum number of results of a search.
pub(crate) const MAX_TOP: usize = 1000;
/// Maximum number of candidates of a search.
pub(crate) const MAX_CANDIDATES: usize = 10_000;
/// Maximum number of conditions of a filter: each becomes a part of one statement.
pub(crate) const MAX_CONDITIONS: usize = 64;

/// A text or an image. A string is a text, or an image if it is a `data:` URL.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a `data:` URL of an image, or an object with one of `text`, `image` and `item`"
)]
pub(crate) enum Input {
    Plain(String),
    Tagged(TaggedInput),
}

/// A text, an image as a `data:` URL, or an item of the index by its number.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TaggedInput {
    Text(String),
    Image(String),
    Item(usize),
}

/// One input or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a `data:` URL of an image, an object with one of `text`, `image` and `item`, or a list of these"
)]
pub(crate) enum Inputs {
    One(Input),
    Many(Vec<Input>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    /// A text for an index of images, an image for an index of captions. An image for an index of images finds those
    /// with the nearest pooled vectors.
    pub(crate) query: Input,
    /// Number of results.
    #[serde(default = "default_top")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub(crate) top: usize,
    /// Number of items to compare exactly, selected by their pooled vectors.
    #[serde(default = "default_candidates")]
    #[schema(minimum = 1, maximum = 10000, default = 200)]
    pub(crate) candidates: usize,
    /// Conditions on the metadata of the items, `KEY OPERATOR VALUE`, which all must hold; for a database only.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub(crate) filter: Vec<String>,
}

fn default_top() -> usize {
    10
}

fn default_candidates() -> usize {
    laps_search::DEFAULT_CANDIDATES
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RankedBy {
    /// The exact similarity of an image and a caption.
    Similarity,
    /// The cosine of the pooled vectors of two images.
    Pooled,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchAnswer {
    /// `images` or `captions`.
    #[schema(value_type = String)]
    pub(crate) kind: IndexKind,
    /// Number of items of the index that match `filter`.
    pub(crate) items: usize,
    pub(crate) ranked_by: RankedBy,
    /// Items that were compared exactly.
    pub(crate) compared: usize,
    #[schema(value_type = Object)]
    pub(crate) model: ModelUsed,
    #[schema(value_type = Object)]
    pub(crate) engine: EngineUsed,
    pub(crate) results: Vec<SearchResult>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResult {
    /// From 1.
    pub(crate) rank: usize,
    /// Number of the item in the index.
    pub(crate) item: usize,
    /// The image's path in its folder, or the caption.
    pub(crate) name: String,
    /// Exact similarity; absent if two images are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) similarity: Option<f32>,
    /// Cosine of the pooled vectors.
    pub(crate) pooled: f32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    pub(crate) input: Inputs,
    /// Name of the entry, if given.
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) encoding_format: EncodingFormat,
    /// The width of the model, if given: vectors are not shortened.
    pub(crate) dimensions: Option<usize>,
    /// Not used.
    #[serde(rename = "user")]
    pub(crate) _user: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// Base64 of little-endian 32-bit floats.
    Base64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingsAnswer {
    /// `list`.
    pub(crate) object: &'static str,
    pub(crate) data: Vec<EmbeddingItem>,
    pub(crate) model: String,
    pub(crate) usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingItem {
    /// `embedding`.
    pub(crate) object: &'static str,
    pub(crate) index: usize,
    pub(crate) embedding: EmbeddingValues,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum EmbeddingValues {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Tokens of the texts.
    pub(crate) prompt_tokens: usize,
    pub(crate) total_tokens: usize,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScoreRequest {
    #[schema(min_items = 1)]
    pub(crate) images: Vec<Input>,
    #[schema(min_items = 1)]
    pub(crate) texts: Vec<Input>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScoreAnswer {
    #[schema(value_type = Object)]
    pub(crate) model: ModelUsed,
    #[schema(value_type = Object)]
    pub(crate) engine: EngineUsed,
    /// Shape `(images, texts)`.
    pub(crate) similarities: Vec<Vec<f32>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RerankRequest {
    /// A text or an image.
    pub(crate) query: Input,
    /// Images for a text, texts for an image.
    #[schema(min_items = 1)]
    pub(crate) documents: Vec<Input>,
    /// Number of results. Default: all.
    #[schema(minimum = 1)]
    pub(crate) top_n: Option<usize>,
    /// Name of the entry, if given.
    pub(crate) model: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RerankAnswer {
    pub(crate) model: String,
    /// Best first.
    pub(crate) results: Vec<RerankResult>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RerankResult {
    /// Index in `documents`.
    pub(crate) index: usize,
    /// Exact similarity.
    pub(crate) relevance_score: f32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainRequest {
    pub(crate) image: Input,
    pub(crate) caption: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, `stopping` or `index unavailable`.
    pub(crate) status: &'static str,
}
