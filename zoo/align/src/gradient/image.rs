//! One image and the captions that it has pairs with.

use super::{pair::PairGradient, scratch::GradientScratch};
use crate::{
    Result,
    similarity::{AlignmentConfig, CaptionMatrix, ImageTokens, MeanPatch, SimdLevel, group_peaks},
};
use laps_model::array::product::{Accumulate, MatrixView, product};

/// Everything that the pairs of an image share. In tables over tokens, the patches come first and the class token last.
pub(super) struct ImagePairs<'a> {
    pub(super) config: &'a AlignmentConfig,
    pub(super) level: SimdLevel,
    pub(super) tokens: &'a ImageTokens,
    /// Logits of the aggregation network, `(patches, groups)`.
    pub(super) logits: &'a [f32],
    /// `exp(logit - largest logit of the group)`, `(patches, groups)`.
    pub(super) factors: Vec<f32>,
    /// Cosine of each patch with the mean patch.
    pub(super) mean_scores: Vec<f32>,
    /// Products of the patches, `(patches, patches)`.
    pub(super) gram: Vec<f32>,
    captions: &'a CaptionMatrix,
    /// Indices of the captions.
    paired: &'a [usize],
    /// Normalised words of the paired captions, concatenated, `(words, width)`.
    pub(super) words: Vec<f32>,
    /// Products of tokens and words, `(tokens, words)`.
    pub(super) products: Vec<f32>,
}

/// Sums of gradients over the pairs of an image.
pub(super) struct ImageGradients {
    /// With respect to the products of tokens and words, `(tokens, words)`.
    pub(super) products: Vec<f32>,
    /// With respect to the products of patches, `(patches, patches)`, symmetric.
    pub(super) gram: Vec<f32>,
    /// With respect to the logits, `(patches, groups)`.
    pub(super) logits: Vec<f32>,
    /// With respect to the tokens, `(tokens, width)`; while pairs are added, without the part through the products.
    pub(super) tokens: Vec<f32>,
    /// With respect to the words, `(words, width)`; while pairs are added, without the part through the products.
    pub(super) words: Vec<f32>,
}

impl<'a> ImagePairs<'a> {
    /// `logits` are `(patches, groups)`.
    pub(super) fn new(
        config: &'a AlignmentConfig,
        tokens: &'a ImageTokens,
        logits: &'a [f32],
        captions: &'a CaptionMatrix,
        paired: &'a [usize],
    ) -> Result<Self> {
        let AlignmentConfig { patches, groups, width, .. } = *config;
        let image_patches = tokens.patches(config);
        let mean = MeanPatch::new(image_patches, width);
        let cosines =
            image_patches.chunks_exact(width).zip(&tokens.norms).map(|(patch, norm)| mean.product(patch) / norm);
        let mean_scores = cosines.map(|cosine| cosine as f32).collect();

        let peaks = group_peaks(logits, groups, groups);
        let rows = logits.chunks_exact(groups);
        let factors = rows.flat_map(|row| row.iter().zip(&peaks).map(|(logit, peak)| (logit - peak).exp())).collect();

        let mut gram = vec![0.0; patches * patches];
        let (rows, columns) = (MatrixView::rows(image_patches, width), MatrixView::columns(image_patches, width));
        product(&mut gram, Accumulate::Overwrite, [patches, width, patches], rows, columns)?;

        let spans = paired.iter().map(|&caption| captions.span(caption..caption + 1));
        let words: Vec<f32> = spans.flat_map(|span| captions.normalised(span)).copied().collect();
        let count = words.len() / width;
        let mut products = vec![0.0; config.tokens() * count];
        product(
            &mut products,
            Accumulate::Overwrite,
            [config.tokens(), width, count],
            MatrixView::rows(&tokens.values, width),
            MatrixView::columns(&words, width),
        )?;
        let level = SimdLevel::detect();
        Ok(Self { config, level, tokens, logits, factors, mean_scores, gram, captions, paired, words, products })
    }

    /// Number of words of the paired captions.
    pub(super) fn word_count(&self) -> usize {
        self.words.len() / self.config.width
    }

    /// Gradient of the pairs. `factors` are those of all captions. The gradient of the words is also added to `to_words`,
    /// which has the words of all captions.
    pub(super) fn differentiate(
        &self,
        factors: &[f32],
        scratch: &mut GradientScratch,
        to_words: &mut [f32],
    ) -> Result<ImageGradients> {
        let AlignmentConfig { patches, width, .. } = *self.config;
        let [tokens, words] = [self.config.tokens(), self.word_count()];
        let mut gradients = ImageGradients {
            products: vec![0.0; tokens * words],
            gram: vec![0.0; patches * patches],
            logits: vec![0.0; self.logits.len()],
            tokens: vec![0.0; tokens * width],
            words: vec![0.0; words * width],
        };
        let mut start = 0;
        for &caption in self.paired {
            let span = self.captions.span(caption..caption + 1);
            let words = start..start + span.len();
            start = words.end;
            let pair = PairGradient { image: self, words, mean_weights: self.captions.mean_weights(span) };
            pair.differentiate(factors[caption], scratch, &mut gradients)?;
        }

        let image_patches = self.tokens.patches(self.config);
        product(
            &mut gradients.tokens,
            Accumulate::Add,
            [tokens, words, width],
            MatrixView::rows(&gradients.products, words),
            MatrixView::rows(&self.words, width),
        )?;
        // A product of two patches has a gradient with respect to each of them.
        let twice: Vec<f32> = gradients.gram.iter().map(|value| 2.0 * value).collect();
        product(
            &mut gradients.tokens[..patches * width],
            Accumulate::Add,
            [patches, patches, width],
            MatrixView::rows(&twice, patches),
            MatrixView::rows(image_patches, width),
        )?;
        product(
            &mut gradients.words,
            Accumulate::Add,
            [words, tokens, width],
            MatrixView::columns(&gradients.products, words),
            MatrixView::rows(&self.tokens.values, width),
        )?;
        let mut from = gradients.words.as_slice();
        for &caption in self.paired {
            let span = self.captions.span(caption..caption + 1);
            let (own, rest) = from.split_at(span.len() * width);
            let to = &mut to_words[span.start * width..span.end * width];
            to.iter_mut().zip(own).for_each(|(sum, value)| *sum += value);
            from = rest;
        }
        Ok(gradients)
    }
}
