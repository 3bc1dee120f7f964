//! Tokens computed as vectors, by the definition. This is the fallback if products of patches have lost too many digits.

use std::ops::Range;

use super::{images::stride, pair::PairKernel, scratch::PairScratch};

impl<C> PairKernel<'_, C> {
    #[cold]
    pub(super) fn group_as_vector(&mut self, group: usize, words: &Range<usize>) {
        let stride = stride(self.config);
        let logit = |patch: u32| self.image.logits[patch as usize * stride + group];
        let kept = &self.scratch.kept[..self.config.kept];
        let peak = kept.iter().map(|&patch| logit(patch)).fold(f32::NEG_INFINITY, f32::max);
        let token = &mut self.scratch.token;
        token.fill(0.0);
        for &patch in kept {
            let weight = (logit(patch) - peak).exp() * self.image.norms[patch as usize];
            self.tokens.add_row(self.first_token + patch as usize, weight, token);
        }
        self.set_token(group, words);
    }

    #[cold]
    pub(super) fn fused_as_vector(&mut self, count: usize, words: &Range<usize>) {
        let PairScratch { token, list, fused, .. } = &mut *self.scratch;
        token.fill(0.0);
        for &patch in &list[..count] {
            self.tokens.add_row(self.first_token + patch as usize, fused[patch as usize], token);
        }
        self.set_token(self.config.aligned_tokens() - 1, words);
    }

    /// Stores the products of the computed token with the words, and its squared norm.
    fn set_token(&mut self, column: usize, words: &Range<usize>) {
        let stride = stride(self.config);
        let PairScratch { token, similarities, squares, counts, .. } = &mut *self.scratch;
        let product = |values: &[f32]| -> f32 {
            token.iter().zip(values).map(|(&left, &right)| f64::from(left) * f64::from(right)).sum::<f64>() as f32
        };
        squares[column] = product(token);
        let rows = self.captions.normalised(words.clone()).chunks_exact(self.config.width);
        rows.zip(similarities.chunks_exact_mut(stride)).for_each(|(word, to)| to[column] = product(word));
        counts.as_vectors += 1;
    }
}
