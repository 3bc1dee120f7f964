//! The tokens of one image and what the similarities and their gradient both derive from them first.

use super::{AlignmentConfig, ImageSource, captions::norm};
use crate::{Error, Result};
use laps_model::models::alignment::NORM_EPS;

/// The tokens of one image, with the patches first.
pub(crate) struct ImageTokens {
    /// `(tokens, width)`: the patches, then the class token if there is one.
    pub(crate) values: Vec<f32>,
    /// Norm of each token, at least 1e-12.
    pub(crate) norms: Vec<f64>,
}

impl ImageTokens {
    /// Zeros, to be replaced by [`read`](Self::read).
    pub(crate) fn new(config: &AlignmentConfig) -> Self {
        Self { values: vec![0.0; config.tokens() * config.width], norms: vec![0.0; config.tokens()] }
    }

    /// Reads an image of `source`.
    ///
    /// # Errors
    /// Values that are not finite, and errors of `source`.
    pub(crate) fn read(&mut self, source: &dyn ImageSource, image: usize, config: &AlignmentConfig) -> Result<()> {
        source.read(image, &mut self.values)?;
        self.values.rotate_left((config.tokens() - config.patches) * config.width);
        for (slot, token) in self.norms.iter_mut().zip(self.values.chunks_exact(config.width)) {
            *slot = norm(token);
            if !slot.is_finite() {
                return Err(Error::Operation {
                    operation: "similarity",
                    expected: "finite embeddings".to_owned(),
                    found: format!("norm {slot} of a token of image {image}"),
                });
            }
        }
        Ok(())
    }

    /// The patches, `(patches, width)`.
    pub(crate) fn patches(&self, config: &AlignmentConfig) -> &[f32] {
        &self.values[..config.patches * config.width]
    }
}

/// The mean of the patches of an image, normalised.
pub(crate) struct MeanPatch {
    sum: Vec<f64>,
    /// Norm of `sum`.
    norm: f64,
}

impl MeanPatch {
    /// The mean of `patches`, `(patches, width)`.
    pub(crate) fn new(patches: &[f32], width: usize) -> Self {
        let count = (patches.len() / width) as f64;
        let mut sum = vec![0.0f64; width];
        for patch in patches.chunks_exact(width) {
            sum.iter_mut().zip(patch).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let norm = sum.iter().map(|sum| (sum / count).powi(2)).sum::<f64>().sqrt().max(NORM_EPS) * count;
        Self { sum, norm }
    }

    /// Product of the normalised mean and a vector.
    pub(crate) fn product(&self, vector: &[f32]) -> f64 {
        // Eight chains, which a processor can add at the same time.
        let mut sums = [0.0f64; 8];
        for (vector, mean) in vector.chunks(8).zip(self.sum.chunks(8)) {
            for (sum, (&value, mean)) in sums.iter_mut().zip(vector.iter().zip(mean)) {
                *sum += f64::from(value) * mean;
            }
        }
        sums.iter().sum::<f64>() / self.norm
    }
}

/// Largest logit of each group over all patches. `logits` has rows of `stride` values, of which `groups` are used.
pub(crate) fn group_peaks(logits: &[f32], stride: usize, groups: usize) -> Vec<f32> {
    let mut peaks = vec![f32::NEG_INFINITY; groups];
    for row in logits.chunks_exact(stride) {
        peaks.iter_mut().zip(row).for_each(|(peak, &logit)| *peak = peak.max(logit));
    }
    peaks
}
