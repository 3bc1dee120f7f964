//! Why the first answer of a failed query is more similar than the correct one: both explanations side by side.

use std::collections::HashMap;

use laps::{ExplainedPair, Image, Model};
use laps_data::image::RgbImage;

use super::{Thumbnails, data_url};
use crate::{
    Result,
    explanation::overlaid,
    reproduce::{QueryFailure, Reproduction},
};

/// Longer side of the pictures, in pixels.
const SIDE: usize = 224;
/// JPEG quality of the pictures.
const QUALITY: u8 = 82;

/// The first and the correct answer of a failed query.
pub(super) struct ContrastView {
    /// The first answer, which is wrong, and the best correct one.
    pub(super) answers: [ExplainedView; 2],
    /// For one caption with two images: word piece, its similarity with both, and the difference, in descending order of the
    /// difference.
    pub(super) words: Vec<[String; 4]>,
}

/// An image and a caption.
pub(super) struct ExplainedView {
    pub(super) title: &'static str,
    /// The image under the map of what each patch adds.
    pub(super) picture: Option<String>,
    /// The caption, if the answers are captions.
    pub(super) caption: Option<String>,
    pub(super) similarity: String,
    pub(super) class_token: String,
    pub(super) patches: String,
    /// Word piece and similarity, in descending order, if the answers are captions.
    pub(super) words: Vec<[String; 2]>,
}

/// Explains the hardest failures of results with the models that they are of.
#[derive(Default)]
pub struct Explainer {
    /// By the hashes of configuration and checkpoint.
    models: HashMap<[String; 2], Model>,
}

impl Explainer {
    /// Adds a model.
    pub fn add(&mut self, model: Model) {
        let used = model.used();
        self.models.insert([used.config_sha256.clone(), used.checkpoint_sha256.clone()], model);
    }

    /// Whether it has the configuration and the checkpoint of `result`.
    pub fn knows(&self, result: &Reproduction) -> bool {
        self.model(result).is_some()
    }

    fn model(&self, result: &Reproduction) -> Option<&Model> {
        let used = result.provenance.entry()?;
        self.models.get(&[used.config_sha256.clone(), used.checkpoint.sha256.clone()])
    }

    /// The first and the correct answer of a failure; None without the model, without the images, or if the similarities
    /// of the model's head have no parts.
    ///
    /// # Errors
    /// A pair that the model cannot encode.
    pub(super) fn contrast(
        &self,
        result: &Reproduction,
        failure: &QueryFailure,
        thumbnails: &Thumbnails,
    ) -> Result<Option<ContrastView>> {
        let Some(model) = self.model(result) else { return Ok(None) };
        let Some(first) = failure.first.iter().find(|answer| !answer.is_right) else { return Ok(None) };
        let answers = [first, &failure.right].map(|answer| match &failure.caption {
            Some(caption) => (thumbnails.read(&answer.image), caption.as_str()),
            None => (thumbnails.read(&failure.image), answer.caption.as_deref().unwrap_or_default()),
        });
        let mut pairs = Vec::with_capacity(2);
        for (image, caption) in answers {
            let Some(image) = image else { return Ok(None) };
            match model.explain(Image::Pixels(image.clone()), caption) {
                Ok(pair) => pairs.push((image, caption, pair)),
                Err(laps::Error::NotExplained { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let [wrong, right] = &pairs[..] else { return Ok(None) };
        let has_one_caption = failure.caption.is_some();
        let view = |title, (image, caption, pair): &(RgbImage, &str, ExplainedPair)| {
            ExplainedView::new(title, image, (!has_one_caption).then_some(*caption), pair)
        };
        Ok(Some(ContrastView {
            answers: [view("first", wrong), view("correct", right)],
            words: if has_one_caption { differences(&wrong.2, &right.2) } else { Vec::new() },
        }))
    }
}

impl ExplainedView {
    fn new(title: &'static str, image: &RgbImage, caption: Option<&str>, pair: &ExplainedPair) -> Self {
        let ExplainedPair { words, grid, explanation } = pair;
        let map: Vec<f64> = explanation.patches.iter().map(|patch| patch.contribution).collect();
        let picture = overlaid(image, *grid, &map).and_then(|picture| data_url(&picture, SIDE, QUALITY).ok());
        let mut by_word: Vec<(f64, &String)> =
            explanation.words.iter().map(|word| word.similarity).zip(words).collect();
        by_word.sort_by(|a, b| b.0.total_cmp(&a.0));
        let words = by_word.into_iter().map(|(similarity, word)| [word.clone(), number(similarity)]);
        Self {
            title,
            picture,
            caption: caption.map(str::to_owned),
            similarity: number(explanation.similarity),
            class_token: number(explanation.class_token),
            patches: number(map.iter().sum()),
            words: if caption.is_some() { words.collect() } else { Vec::new() },
        }
    }
}

fn differences(wrong: &ExplainedPair, right: &ExplainedPair) -> Vec<[String; 4]> {
    let words = wrong.words.iter().zip(wrong.explanation.words.iter().zip(&right.explanation.words));
    let mut words: Vec<(&String, f64, f64)> =
        words.map(|(word, (wrong, right))| (word, wrong.similarity, right.similarity)).collect();
    words.sort_by(|a, b| (b.1 - b.2).total_cmp(&(a.1 - a.2)));
    words
        .into_iter()
        .map(|(word, wrong, right)| [word.clone(), number(wrong), number(right), format!("{:+.3}", wrong - right)])
        .collect()
}

fn number(value: f64) -> String {
    format!("{value:.3}")
}
