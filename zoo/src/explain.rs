//! Explains the similarity of an image and a caption as a sum of contributions.

use laps_align::similarity::{Explanation, explain_head};
use laps_model::{array::Array, heads::HeadConfig};

use crate::{Error, Image, Model, Result, model::HeadSimilarity};

/// The similarity of an image and a caption, split into contributions.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedPair {
    /// The word pieces of the caption, `[CLS]` and `[SEP]` included. A piece that continues a word begins with `##`.
    pub words: Vec<String>,
    /// Rows and columns of the patches. Images are squashed to a square, so the grid covers the whole image.
    pub grid: [usize; 2],
    /// Scores, weights and contributions.
    pub explanation: Explanation,
}

impl Model {
    /// Splits the similarity of an image and a caption into contributions: the scores of all patches, which of them the
    /// caption keeps, how they are merged, and which token each word matches. Of the other heads, `scan_t2i`,
    /// `scan_i2t`, `scan_all`, `max_mean` and `chan` have explanations: their attention or best tokens, as contributions of
    /// the patches.
    ///
    /// ```no_run
    /// # fn main() -> laps::Result<()> {
    /// let model = laps::Model::builder("shapes_vit").open()?;
    /// let pair = model.explain("photo.png", "a red circle above a blue square")?;
    /// let sum: f64 = pair.explanation.patches.iter().map(|patch| patch.contribution).sum();
    /// assert!((pair.explanation.similarity - sum - pair.explanation.class_token).abs() < 1e-6);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An image that cannot be decoded, a caption that is too long, and a head whose similarity has no parts.
    pub fn explain(&self, image: impl Into<Image>, caption: &str) -> Result<ExplainedPair> {
        self.check_explainable()?;
        let images = self.embed_images([image.into()])?;
        let words = self.embed_captions(&[caption])?.remove(0);
        let image = Array::new(&[self.sizes().tokens, self.sizes().width], images.into_values())?;
        self.explain_embeddings(&image, &words, caption)
    }

    /// As [`explain`](Self::explain), from the embeddings `(tokens, width)` of the image and `(words, width)` of the caption.
    ///
    /// # Errors
    /// Embeddings of another model, and a head whose similarity has no parts.
    pub fn explain_embeddings(&self, image: &Array, words: &Array, caption: &str) -> Result<ExplainedPair> {
        self.check_explainable()?;
        let explanation = match self.head_similarity() {
            HeadSimilarity::Laps(engine) => engine.explain(image, words)?,
            HeadSimilarity::Head(_) => explain_head(&self.used().head, self.sizes(), image, words)?,
        };
        let tokenizer = self.tokenizer();
        let mut tokens = tokenizer.encode(caption.trim())?;
        tokenizer.truncate(&mut tokens, words.dims().first().copied().unwrap_or(0));
        let words = tokens.into_iter().map(|id| tokenizer.token(id)).collect();
        let patches = explanation.patches.len();
        let side = patches.isqrt();
        Ok(ExplainedPair { words, grid: [side, patches / side.max(1)], explanation })
    }

    fn check_explainable(&self) -> Result<()> {
        let head = self.used().head;
        match unexplained(&head) {
            Some(found) => Err(Error::NotExplained { head: head.to_string(), found }),
            None => Ok(()),
        }
    }
}

/// Why a similarity of `head` has no parts to explain; None if it has.
fn unexplained(head: &HeadConfig) -> Option<&'static str> {
    match head {
        HeadConfig::Sgr { .. } => Some("a network over all words at once, whose output cannot be split into parts"),
        HeadConfig::LapsAblation { .. } => Some("LAPS with one part changed, which is not explained"),
        _ if head.pools() => Some("one vector of each; no patch is compared with a word"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use laps_model::heads::{Ablation, HeadConfig};

    use super::unexplained;
    use crate::Error;

    #[test]
    fn ablation_is_refused_with_its_name() {
        for ablation in Ablation::ALL {
            assert!(unexplained(&HeadConfig::LapsAblation { ablation }).is_some());
        }
        let head = HeadConfig::LapsAblation { ablation: Ablation::WithoutRedundantFusion };
        let error = Error::NotExplained { head: head.to_string(), found: unexplained(&head).unwrap() };
        assert_eq!(
            format!("{error}\nhint: {}", error.hint().unwrap()),
            "a similarity of the head `laps_ablation, ablation without_redundant_fusion` cannot be explained\n  expected: a sum \
             over patches and words\n  found: LAPS with one part changed, which is not explained\nhint: explain a model with \
             the head `laps`, `scan_*`, `max_mean` or `chan`"
        );
        for head in [HeadConfig::Laps, HeadConfig::ScanAll, HeadConfig::MaxMean] {
            assert_eq!(unexplained(&head), None);
        }
    }
}
