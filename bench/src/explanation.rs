//! Explanations of a similarity as JSON, as an HTML page and as a picture.

use std::path::Path;

use askama::Template;
use laps::{EngineUsed, ExplainedPair};
use laps_align::similarity::TokenKind;
use laps_data::image::{self, RgbImage};
use laps_search::ModelUsed;
use serde::Serialize;

use crate::{Error, Result, report::data_url};

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// Longer side of the picture in the page, in pixels.
const SIDE: usize = 640;
/// JPEG quality of the picture in the page.
const QUALITY: u8 = 85;
/// Colour of a patch that adds to the similarity, and of one that takes from it.
const COLORS: [[f64; 3]; 2] = [[230.0, 60.0, 20.0], [30.0, 90.0, 220.0]];
/// Opacity of the patch that adds or takes most.
const OPACITY: f64 = 0.75;

/// An explanation with what it is about, serialised as the JSON document. Similarities and parts are in double precision.
#[derive(Debug, Serialize)]
pub struct ExplanationDocument<'a> {
    schema: u32,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    image: String,
    caption: &'a str,
    /// The similarity: `class_token` plus the sum of the patches' `contribution`.
    similarity: f64,
    class_token: f64,
    /// Rows and columns of the patches.
    grid: [usize; 2],
    words: Vec<Word<'a>>,
    tokens: Vec<Token<'a>>,
    patches: Vec<Patch>,
}

#[derive(Debug, Serialize)]
struct Word<'a> {
    text: &'a str,
    /// Index of the token that it matches.
    token: usize,
    similarity: f64,
    /// The best token that is made of patches, and the similarity to it.
    spatial_token: usize,
    spatial_similarity: f64,
    /// Contribution of each patch to `spatial_similarity`.
    patches: &'a [f64],
}

#[derive(Debug, Serialize)]
struct Token<'a> {
    /// `class`, `group` or `fused`.
    kind: &'static str,
    /// Index of the word that it matches.
    word: usize,
    similarity: f64,
    /// Weight of each patch; none for the class token.
    weights: &'a [f64],
}

#[derive(Debug, Serialize)]
struct Patch {
    /// Cosine with the mean patch.
    image_score: f64,
    /// Cosine with the mean word.
    caption_score: f64,
    /// Whether the caption keeps the patch.
    kept: bool,
    /// Contribution of the patch to the similarity.
    contribution: f64,
}

#[derive(Template)]
#[template(path = "explanation.html")]
struct Page<'a> {
    caption: &'a str,
    image: &'a str,
    model: &'a str,
    similarity: String,
    picture: String,
    /// The document as JSON that cannot end its element.
    json: String,
}

impl<'a> ExplanationDocument<'a> {
    /// The document of the image at `path` and `caption`.
    pub fn new(
        model: &'a ModelUsed,
        engine: &'a EngineUsed,
        path: &Path,
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
            };
            Token { kind, word: token.word, similarity: token.similarity, weights }
        });
        let patches = explanation.patches.iter().map(|patch| Patch {
            image_score: patch.image_score,
            caption_score: patch.caption_score,
            kept: patch.kept,
            contribution: patch.contribution,
        });
        Self {
            schema: SCHEMA,
            model,
            engine,
            image: path.display().to_string(),
            caption,
            similarity: explanation.similarity,
            class_token: explanation.class_token,
            grid: pair.grid,
            words: words
                .map(|(text, word)| Word {
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

    /// The document as indented JSON.
    ///
    /// # Errors
    /// [`Error::Template`]; values are finite, so none is expected.
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|source| Error::Template { source: source.into() })?;
        Ok(text + "\n")
    }

    /// A page that needs no other file: the picture, the words, and which patches add to which word.
    ///
    /// # Errors
    /// [`Error::Template`] if the picture cannot be encoded.
    pub fn page(&self, image: &RgbImage) -> Result<String> {
        let template = |source: Box<dyn std::error::Error + Send + Sync>| Error::Template { source };
        let picture = data_url(image, SIDE, QUALITY).map_err(|source| template(source.into()))?;
        let json = serde_json::to_string(self).map_err(|source| template(source.into()))?;
        let page = Page {
            caption: self.caption,
            image: &self.image,
            model: &self.model.entry,
            similarity: format!("{:.4}", self.similarity),
            picture,
            // `</script>` in a caption or a file name would end the element.
            json: json.replace('<', "\\u003c"),
        };
        page.render().map_err(|source| template(source.into()))
    }

    /// The image as PNG under the map of what each patch adds to the similarity, or to that of the word of index `word`.
    /// Red adds, blue takes away, and the strongest patch is the most opaque.
    ///
    /// # Errors
    /// [`Error::Template`] if the image is too large for the format.
    pub fn overlay(&self, image: &RgbImage, word: Option<usize>) -> Result<Vec<u8>> {
        let map: Vec<f64> = match word.and_then(|word| self.words.get(word)) {
            Some(word) => word.patches.to_vec(),
            None => self.patches.iter().map(|patch| patch.contribution).collect(),
        };
        let largest = map.iter().fold(f64::MIN_POSITIVE, |largest, part| largest.max(part.abs()));
        let (width, height) = (image.width(), image.height());
        let [rows, columns] = self.grid;
        let mut pixels = image.pixels().to_vec();
        for (index, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let (row, column) = (index / width * rows / height, index % width * columns / width);
            let part = map.get(row * columns + column).copied().unwrap_or_default();
            let color = COLORS[usize::from(part < 0.0)];
            let opacity = OPACITY * part.abs() / largest;
            for (channel, color) in pixel.iter_mut().zip(color) {
                *channel = (f64::from(*channel) * (1.0 - opacity) + color * opacity).round() as u8;
            }
        }
        let overlay = RgbImage::new(width, height, pixels);
        let overlay = overlay.ok_or_else(|| Error::Template { source: "the image has no pixels".into() })?;
        image::png(&overlay).map_err(|source| Error::Template { source: source.into() })
    }

    /// The words, for a choice by text.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|word| word.text)
    }
}
