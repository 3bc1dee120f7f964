//! Gradient of similarities with respect to the embeddings, on the CPU.
//!
//! The algebra is that of the similarity engine, differentiated by hand. With `X` the patches of an image, `T` the words of
//! a caption, `P = X T^T`, `G = X X^T` and `E` the exponentials of the logits of the patches that the caption keeps, a group
//! has the products `E P` with the words and the squared norm `E G E^T`, so that a pair gives gradients of `P`, `G` and `E`
//! only; what they mean for `X` and `T` is one product for each image. Nothing of the embeddings' width is made for a pair,
//! but where products of patches cancel too many digits, and nothing is recorded. Selection has no gradient, nor have the weights of the fused patch.

mod image;
mod pair;
mod scratch;
mod vector;

use std::ops::Range;

use rayon::prelude::*;

use self::{image::Image, scratch::Scratch};
use crate::{
    Error, Result,
    similarity::{AlignmentConfig, CaptionMatrix},
};
use laps_model::array::Array;

/// Chunks of a batch. Each one sums its gradients of words, and the sums are added in order, so that the result does not
/// depend on the number of threads.
const CHUNKS: usize = 16;

/// What the pairs of a batch are computed from.
pub struct AlignmentBatch<'a> {
    /// Sizes of the alignment.
    pub config: AlignmentConfig,
    /// `(images, tokens, width)`, the class token first where there is one.
    pub images: &'a Array,
    /// Logits of the aggregation, `(images, patches, groups)`.
    pub logits: &'a Array,
    /// The captions.
    pub captions: &'a CaptionMatrix,
}

/// Gradient with respect to a [`AlignmentBatch`].
pub struct Gradient {
    /// `(images, tokens, width)`
    pub images: Array,
    /// `(images, patches, groups)`
    pub logits: Array,
    /// With respect to the normalised words of all captions, one caption after another, `(words, width)`.
    pub words: Array,
    /// Pairs that had a part in it.
    pub pairs: usize,
}

/// The gradient from a chunk of images.
struct ChunkGradient {
    images: Vec<f32>,
    logits: Vec<f32>,
    words: Vec<f32>,
    pairs: usize,
}

impl AlignmentBatch<'_> {
    /// Gradient of the sum of all similarities times `factors`, `(images, captions)`, of which those that are 0 cost
    /// nothing. Pairs count where the number of their image or of their caption is in `local`.
    pub fn gradient(&self, factors: &[f32], local: &Range<usize>) -> Result<Gradient> {
        self.check(factors)?;
        let images = self.images.dims()[0];
        let each = images.div_ceil(CHUNKS).max(1);
        let starts: Vec<usize> = (0..images).step_by(each).collect();
        let parts =
            starts.into_par_iter().map(|start| self.chunk_gradient(start..(start + each).min(images), factors, local));
        let parts: Vec<ChunkGradient> = parts.collect::<Result<_>>()?;

        let mut words = vec![0.0; self.captions.words() * self.config.width];
        let mut all = ChunkGradient { images: Vec::new(), logits: Vec::new(), words: Vec::new(), pairs: 0 };
        for part in parts {
            all.images.extend(part.images);
            all.logits.extend(part.logits);
            all.pairs += part.pairs;
            words.iter_mut().zip(&part.words).for_each(|(sum, value)| *sum += value);
        }
        Ok(Gradient {
            images: Array::new(self.images.dims(), all.images)?,
            logits: Array::new(self.logits.dims(), all.logits)?,
            words: Array::new(&[self.captions.words(), self.config.width], words)?,
            pairs: all.pairs,
        })
    }

    fn chunk_gradient(&self, range: Range<usize>, factors: &[f32], local: &Range<usize>) -> Result<ChunkGradient> {
        let AlignmentConfig { patches, groups, width, .. } = self.config;
        let [tokens, logits] = [self.config.tokens() * width, patches * groups];
        let mut part = ChunkGradient {
            images: vec![0.0; range.len() * tokens],
            logits: vec![0.0; range.len() * logits],
            words: vec![0.0; self.captions.words() * width],
            pairs: 0,
        };
        let mut scratch = Scratch::new(&self.config, self.captions.longest());
        let captions = self.captions.len();
        for (place, image) in range.enumerate() {
            let factors = &factors[image * captions..][..captions];
            let counts =
                |caption: &usize| factors[*caption] != 0.0 && (local.contains(&image) || local.contains(caption));
            let needed: Vec<usize> = (0..captions).filter(counts).collect();
            if needed.is_empty() {
                continue;
            }
            part.pairs += needed.len();
            let own = Image::new(
                &self.config,
                &self.images.values()[image * tokens..][..tokens],
                &self.logits.values()[image * logits..][..logits],
                (self.captions, &needed),
            )?;
            let to_logits = &mut part.logits[place * logits..][..logits];
            let to_tokens = &mut part.images[place * tokens..][..tokens];
            own.differentiate(factors, &mut scratch, (to_tokens, to_logits, &mut part.words))?;
        }
        Ok(part)
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
