//! Gradient of similarities with respect to the embeddings, on the CPU.
//!
//! This is the algebra of [`similarity`](crate::similarity), differentiated by hand. With the patches `X` of an image, the
//! words `T` of a caption, `P = X T^T`, `G = X X^T`, and the exponentials `E` of the logits of the kept patches, a group has
//! the products `E P` with the words and the squared norm `E G E^T`. A pair therefore has gradients with respect to `P`, `G`
//! and `E` only. One matrix product for each image turns the sums of these into gradients with respect to `X` and `T`.
//!
//! Nothing of the width of the embeddings is computed for a pair, and nothing is recorded. The exception are tokens whose
//! products cancel too many digits, which are computed as vectors. The selection of patches and the weights of the fused
//! patch have no gradient.

mod image;
mod pair;
mod scratch;
mod vector;

use std::ops::Range;

use rayon::prelude::*;

use self::{image::ImagePairs, scratch::GradientScratch};
use crate::{
    Error, Result,
    similarity::{AlignmentConfig, CaptionMatrix, ImageTokens},
};
use laps_model::array::Array;

/// Maximum number of chunks of a batch. Each chunk sums its own gradient of the words. The sums are added in order, so the
/// result does not depend on the number of threads.
const MAX_CHUNKS: usize = 16;

/// Embeddings of a batch.
pub struct AlignmentBatch<'a> {
    /// Sizes of the alignment.
    pub config: AlignmentConfig,
    /// Images `(images, tokens, width)`, the class token first if there is one.
    pub images: &'a Array,
    /// Logits of the aggregation network, `(images, patches, groups)`.
    pub logits: &'a Array,
    /// Captions.
    pub captions: &'a CaptionMatrix,
}

/// Gradient with respect to an [`AlignmentBatch`].
pub struct AlignmentGradient {
    /// `(images, tokens, width)`
    pub images: Array,
    /// `(images, patches, groups)`
    pub logits: Array,
    /// With respect to the normalised words of all captions, concatenated, `(words, width)`.
    pub words: Array,
    /// Number of pairs with a non-zero factor.
    pub pairs: usize,
}

/// Gradient of the images of a chunk, and their gradient of all words.
struct ChunkGradient {
    images: Vec<f32>,
    logits: Vec<f32>,
    words: Vec<f32>,
    pairs: usize,
}

impl AlignmentBatch<'_> {
    /// Gradient of the sum of all similarities times `factors`, `(images, captions)`. Pairs with factor 0 cost nothing. Only
    /// pairs whose image or caption index is in `local` count.
    ///
    /// # Errors
    /// Sizes that do not fit, and images that are not finite.
    pub fn gradient(&self, factors: &[f32], local: &Range<usize>) -> Result<AlignmentGradient> {
        self.check(factors)?;
        let images = self.images.dims()[0];
        let chunk_size = images.div_ceil(MAX_CHUNKS).max(1);
        let starts: Vec<usize> = (0..images).step_by(chunk_size).collect();
        let chunks = starts
            .into_par_iter()
            .map(|start| self.chunk_gradient(start..(start + chunk_size).min(images), factors, local));
        let chunks: Vec<ChunkGradient> = chunks.collect::<Result<_>>()?;

        let mut words = vec![0.0; self.captions.words() * self.config.width];
        let mut all = ChunkGradient { images: Vec::new(), logits: Vec::new(), words: Vec::new(), pairs: 0 };
        for chunk in chunks {
            all.images.extend(chunk.images);
            all.logits.extend(chunk.logits);
            all.pairs += chunk.pairs;
            words.iter_mut().zip(&chunk.words).for_each(|(sum, value)| *sum += value);
        }
        Ok(AlignmentGradient {
            images: Array::new(self.images.dims(), all.images)?,
            logits: Array::new(self.logits.dims(), all.logits)?,
            words: Array::new(&[self.captions.words(), self.config.width], words)?,
            pairs: all.pairs,
        })
    }

    fn chunk_gradient(&self, range: Range<usize>, factors: &[f32], local: &Range<usize>) -> Result<ChunkGradient> {
        let config = &self.config;
        let [token_values, logit_values] = [config.tokens() * config.width, config.patches * config.groups];
        let mut chunk = ChunkGradient {
            images: vec![0.0; range.len() * token_values],
            logits: vec![0.0; range.len() * logit_values],
            words: vec![0.0; self.captions.words() * config.width],
            pairs: 0,
        };
        let mut scratch = GradientScratch::new(config, self.captions.longest());
        let mut tokens = ImageTokens::new(config);
        let captions = self.captions.len();
        let outputs = chunk.images.chunks_exact_mut(token_values).zip(chunk.logits.chunks_exact_mut(logit_values));
        for (image, (to_tokens, to_logits)) in range.zip(outputs) {
            let factors = &factors[image * captions..][..captions];
            let counts =
                |caption: &usize| factors[*caption] != 0.0 && (local.contains(&image) || local.contains(caption));
            let paired: Vec<usize> = (0..captions).filter(counts).collect();
            if paired.is_empty() {
                continue;
            }
            chunk.pairs += paired.len();
            tokens.read(self.images, image, config)?;
            let logits = &self.logits.values()[image * logit_values..][..logit_values];
            let pairs = ImagePairs::new(config, &tokens, logits, self.captions, &paired)?;
            let gradients = pairs.differentiate(factors, &mut scratch, &mut chunk.words)?;
            to_tokens.copy_from_slice(&gradients.tokens);
            // Images have the class token first.
            to_tokens.rotate_right((config.tokens() - config.patches) * config.width);
            to_logits.copy_from_slice(&gradients.logits);
        }
        Ok(chunk)
    }

    fn check(&self, factors: &[f32]) -> Result<()> {
        let AlignmentConfig { patches, groups, width, .. } = self.config;
        let images = self.images.dims().first().copied().unwrap_or(0);
        let expected = [vec![images, self.config.tokens(), width], vec![images, patches, groups]];
        let found = [self.images, self.logits].map(|array| array.dims().to_vec());
        let counts = [images * self.captions.len(), width];
        if expected == found && counts == [factors.len(), self.captions.width()] {
            return Ok(());
        }
        Err(Error::Operation {
            operation: "gradient of the alignment",
            expected: format!("images and logits of {expected:?}, factors and width {counts:?}"),
            found: format!("{found:?}, [{}, {}]", factors.len(), self.captions.width()),
        })
    }
}
