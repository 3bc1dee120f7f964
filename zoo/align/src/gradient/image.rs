//! One image and the captions that it has pairs with.

use std::ops::Range;

use super::{pair::Pair, scratch::Scratch};
use crate::{
    Result,
    similarity::{AlignmentConfig, CaptionMatrix, norm},
};
use laps_model::array::product::{Accumulate, Matrix, product};

/// What the pairs of an image have in common. Tables over tokens begin with the patches; the class token comes last.
pub(super) struct Image<'a> {
    pub(super) config: &'a AlignmentConfig,
    /// `(tokens, width)`
    pub(super) tokens: Vec<f32>,
    /// Logits of the aggregation, `(patches, groups)`.
    pub(super) logits: &'a [f32],
    /// Exponentials of the logits, the largest of each group being 1, `(patches, groups)`.
    pub(super) factors: Vec<f32>,
    /// Norms of the tokens, at least 1e-12.
    pub(super) norms: Vec<f64>,
    /// Cosine of each patch with the mean of the patches.
    pub(super) own_scores: Vec<f32>,
    /// Products of the patches, `(patches, patches)`.
    pub(super) gram: Vec<f32>,
    captions: &'a CaptionMatrix,
    /// Numbers of the captions.
    needed: &'a [usize],
    /// Normalised words of the captions, one after another, `(words, width)`.
    pub(super) words: Vec<f32>,
    /// Products of tokens and words, `(tokens, words)`.
    pub(super) products: Vec<f32>,
}

/// Gradients of what the pairs of an image have in common.
pub(super) struct Sums {
    /// Of the products of tokens and words, `(tokens, words)`.
    pub(super) products: Vec<f32>,
    /// Of the products of patches, `(patches, patches)`, symmetric.
    pub(super) gram: Vec<f32>,
    /// Of the logits, `(patches, groups)`.
    pub(super) logits: Vec<f32>,
    /// Of the tokens, what comes of no product, `(tokens, width)`.
    pub(super) tokens: Vec<f32>,
    /// Of the words, what comes of no product, `(words, width)`.
    pub(super) words: Vec<f32>,
}

impl<'a> Image<'a> {
    /// From tokens `(tokens, width)` in the order of an encoder and logits `(patches, groups)`.
    pub(super) fn new(
        config: &'a AlignmentConfig,
        tokens: &[f32],
        logits: &'a [f32],
        (captions, needed): (&'a CaptionMatrix, &'a [usize]),
    ) -> Result<Self> {
        let AlignmentConfig { patches, groups, width, .. } = *config;
        let mut tokens = tokens.to_vec();
        tokens.rotate_left((config.tokens() - patches) * width);
        let norms: Vec<f64> = tokens.chunks_exact(width).map(norm).collect();
        let of_patches = &tokens[..patches * width];

        let mut mean = vec![0.0f64; width];
        for patch in of_patches.chunks_exact(width) {
            mean.iter_mut().zip(patch).for_each(|(sum, &value)| *sum += f64::from(value) / patches as f64);
        }
        let mean_norm = mean.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
        let projection =
            |patch: &[f32]| patch.iter().zip(&mean).map(|(&value, mean)| f64::from(value) * mean).sum::<f64>();
        let cosines =
            of_patches.chunks_exact(width).zip(&norms).map(|(patch, norm)| projection(patch) / norm / mean_norm);
        let own_scores = cosines.map(|cosine| cosine as f32).collect();

        let mut peaks = vec![f32::NEG_INFINITY; groups];
        for row in logits.chunks_exact(groups) {
            peaks.iter_mut().zip(row).for_each(|(peak, &logit)| *peak = peak.max(logit));
        }
        let rows = logits.chunks_exact(groups);
        let factors = rows.flat_map(|row| row.iter().zip(&peaks).map(|(logit, peak)| (logit - peak).exp())).collect();

        let mut gram = vec![0.0; patches * patches];
        let (rows, columns) = (Matrix::rows(of_patches, width), Matrix::columns(of_patches, width));
        product(&mut gram, Accumulate::Overwrite, [patches, width, patches], rows, columns)?;

        let spans = needed.iter().map(|&caption| captions.span(caption..caption + 1));
        let words: Vec<f32> = spans.flat_map(|span| captions.normalised(span)).copied().collect();
        let count = words.len() / width;
        let mut products = vec![0.0; config.tokens() * count];
        let extents = [config.tokens(), width, count];
        product(
            &mut products,
            Accumulate::Overwrite,
            extents,
            Matrix::rows(&tokens, width),
            Matrix::columns(&words, width),
        )?;
        Ok(Self { config, tokens, logits, factors, norms, own_scores, gram, captions, needed, words, products })
    }

    /// Words of all captions.
    pub(super) fn word_count(&self) -> usize {
        self.words.len() / self.config.width
    }

    /// Adds the gradients of the pairs, `factors` being those of all captions, to those of the tokens in the order of the
    /// encoder, of the logits, and of the words of all captions.
    pub(super) fn differentiate(
        &self,
        factors: &[f32],
        scratch: &mut Scratch,
        (to_tokens, to_logits, to_words): (&mut [f32], &mut [f32], &mut [f32]),
    ) -> Result<()> {
        let AlignmentConfig { patches, width, .. } = *self.config;
        let [tokens, words] = [self.config.tokens(), self.word_count()];
        let mut sums = Sums {
            products: vec![0.0; tokens * words],
            gram: vec![0.0; patches * patches],
            logits: vec![0.0; self.logits.len()],
            tokens: vec![0.0; tokens * width],
            words: vec![0.0; words * width],
        };
        let mut start = 0;
        for &caption in self.needed {
            let span = self.captions.span(caption..caption + 1);
            let pair =
                Pair { image: self, words: start..start + span.len(), mean_weights: self.captions.mean_weights(span) };
            start = pair.words.end;
            pair.differentiate(factors[caption], scratch, &mut sums)?;
        }

        let Sums { products, gram, logits, tokens: mut of_tokens, words: mut of_words } = sums;
        let of_patches = &self.tokens[..patches * width];
        product(
            &mut of_tokens,
            Accumulate::Add,
            [tokens, words, width],
            Matrix::rows(&products, words),
            Matrix::rows(&self.words, width),
        )?;
        // A product of two patches has a gradient for each of them.
        let twice: Vec<f32> = gram.iter().map(|value| 2.0 * value).collect();
        product(
            &mut of_tokens[..patches * width],
            Accumulate::Add,
            [patches, patches, width],
            Matrix::rows(&twice, patches),
            Matrix::rows(of_patches, width),
        )?;
        product(
            &mut of_words,
            Accumulate::Add,
            [words, tokens, width],
            Matrix::columns(&products, words),
            Matrix::rows(&self.tokens, width),
        )?;
        of_tokens.rotate_right((tokens - patches) * width);
        to_tokens.copy_from_slice(&of_tokens);
        to_logits.copy_from_slice(&logits);
        let mut from = of_words.as_slice();
        for &caption in self.needed {
            let span: Range<usize> = self.captions.span(caption..caption + 1);
            let (own, rest) = from.split_at(span.len() * width);
            let to = &mut to_words[span.start * width..span.end * width];
            to.iter_mut().zip(own).for_each(|(sum, value)| *sum += value);
            from = rest;
        }
        Ok(())
    }
}
