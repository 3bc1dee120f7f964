//! An explanation as a JSON document.

use laps_align::similarity::TokenKind;
use laps_search::ModelUsed;
use serde::Serialize;

use crate::{EngineUsed, ExplainedPair};

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// An explanation with what it is about, serialised as the JSON document. Similarities and parts are in double precision.
#[derive(Clone, Debug, Serialize)]
pub struct ExplanationDocument<'a> {
    /// Version of the document.
    pub schema: u32,
    /// Entry, configuration and checkpoint, which determine the embeddings.
    pub model: &'a ModelUsed,
    /// The engine that computed them.
    pub engine: &'a EngineUsed,
    /// Name of the image.
    pub image: String,
    /// The caption.
    pub caption: &'a str,
    /// The similarity: `class_token` plus the sum of the patches' `contribution`.
    pub similarity: f64,
    /// Contribution of the class token to the similarity.
    pub class_token: f64,
    /// Rows and columns of the patches.
    pub grid: [usize; 2],
    /// The word pieces of the caption.
    pub words: Vec<WordDocument<'a>>,
    /// The tokens of the image that words are compared with.
    pub tokens: Vec<TokenDocument<'a>>,
    /// The patches, row by row from the top left.
    pub patches: Vec<PatchDocument>,
}

/// A word piece.
#[derive(Clone, Debug, Serialize)]
pub struct WordDocument<'a> {
    /// The piece; `##` continues a word.
    pub text: &'a str,
    /// Index of the token that it matches.
    pub token: usize,
    /// The similarity to it.
    pub similarity: f64,
    /// The best token that is made of patches.
    pub spatial_token: usize,
    /// The similarity to it.
    pub spatial_similarity: f64,
    /// Contribution of each patch to `spatial_similarity`.
    pub patches: &'a [f64],
}

/// A token of the image.
#[derive(Clone, Debug, Serialize)]
pub struct TokenDocument<'a> {
    /// `class`, `group`, `fused`, or with a head other than LAPS's `patch`.
    pub kind: &'static str,
    /// Index of the word that it matches.
    pub word: usize,
    /// The similarity to it.
    pub similarity: f64,
    /// Weight of each patch; none for the class token and single patches.
    pub weights: &'a [f64],
}

/// A patch of the image.
#[derive(Clone, Debug, Serialize)]
pub struct PatchDocument {
    /// Cosine with the mean patch.
    pub image_score: f64,
    /// Cosine with the mean word.
    pub caption_score: f64,
    /// Whether the caption keeps the patch.
    pub kept: bool,
    /// Contribution of the patch to the similarity.
    pub contribution: f64,
}

impl<'a> ExplanationDocument<'a> {
    /// The document of the image named `image` and `caption`.
    pub fn new(
        model: &'a ModelUsed,
        engine: &'a EngineUsed,
        image: String,
        caption: &'a str,
        pair: &'a ExplainedPair,
    ) -> Self {
        let explanation = &pair.explanation;
        let words = pair.words.iter().zip(&explanation.words);
        let tokens = explanation.tokens.iter().map(|token| {
            let (kind, weights): (_, &[f64]) = match &token.kind {
                TokenKind::Class => ("class", &[]),
                TokenKind::Group(weights) => ("group", weights),
                TokenKind::Fused(weights) => ("fused", weights),
                TokenKind::Patch(_) => ("patch", &[]),
            };
            TokenDocument { kind, word: token.word, similarity: token.similarity, weights }
        });
        let patches = explanation.patches.iter().map(|patch| PatchDocument {
            image_score: patch.image_score,
            caption_score: patch.caption_score,
            kept: patch.kept,
            contribution: patch.contribution,
        });
        Self {
            schema: SCHEMA,
            model,
            engine,
            image,
            caption,
            similarity: explanation.similarity,
            class_token: explanation.class_token,
            grid: pair.grid,
            words: words
                .map(|(text, word)| WordDocument {
                    text,
                    token: word.token,
                    similarity: word.similarity,
                    spatial_token: word.spatial_token,
                    spatial_similarity: word.spatial_similarity,
                    patches: &word.patches,
                })
                .collect(),
            tokens: tokens.collect(),
            patches: patches.collect(),
        }
    }
}
