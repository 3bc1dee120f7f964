//! Random embeddings and weights. A seed gives the same values on every machine.

use laps_align::similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, ImageSource};
use laps_model::{array::Array, random::SplitMix64};
use rayon::prelude::*;

use super::CaptionLengths;
use crate::Result;

/// Images with standard normal embeddings, generated when they are read.
#[derive(Clone, Copy, Debug)]
pub struct RandomImages {
    /// Random seed; each image has its own stream.
    pub seed: u64,
    /// Number of images.
    pub images: usize,
    /// Sizes of the alignment.
    pub config: AlignmentConfig,
}

impl RandomImages {
    /// The embeddings of all images, `(images, tokens, width)`.
    ///
    /// # Errors
    /// Sizes that do not fit an array.
    pub fn to_array(&self) -> Result<Array> {
        let [tokens, width] = self.shape();
        let mut values = vec![0.0; self.images * tokens * width];
        values
            .par_chunks_exact_mut(tokens * width)
            .enumerate()
            .try_for_each(|(image, tokens)| self.read(image, tokens))?;
        Ok(Array::new(&[self.images, tokens, width], values)?)
    }
}

impl ImageSource for RandomImages {
    fn len(&self) -> usize {
        self.images
    }

    fn shape(&self) -> [usize; 2] {
        [self.config.tokens(), self.config.width]
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> laps_align::Result<()> {
        fill(self.seed, &format!("image {image}"), 1.0, tokens);
        Ok(())
    }
}

fn fill(seed: u64, name: &str, spread: f64, values: &mut [f32]) {
    let mut random = SplitMix64::named(seed, name);
    values.iter_mut().for_each(|value| *value = (random.normal() * spread) as f32);
}

/// Passes each caption to `consume` as it is generated, so that no caption is in memory twice.
fn each_caption(seed: u64, captions: usize, width: usize, mut consume: impl FnMut(Array) -> Result<()>) -> Result<()> {
    for (caption, length) in CaptionLengths::new(seed).take(captions).enumerate() {
        let mut words = vec![0.0; length * width];
        fill(seed, &format!("caption {caption}"), 1.0, &mut words);
        consume(Array::new(&[length, width], words)?)?;
    }
    Ok(())
}

/// Standard normal word embeddings of captions with realistic lengths, `(words, width)` each.
///
/// # Errors
/// Sizes that do not fit an array.
pub fn captions(seed: u64, captions: usize, width: usize) -> Result<Vec<Array>> {
    let mut all = Vec::with_capacity(captions);
    each_caption(seed, captions, width, |caption| {
        all.push(caption);
        Ok(())
    })?;
    Ok(all)
}

/// The same captions in the layout of the engines.
pub(crate) fn caption_matrix(seed: u64, captions: usize, width: usize) -> Result<CaptionMatrix> {
    let mut matrix = CaptionMatrix::new(width);
    each_caption(seed, captions, width, |caption| Ok(matrix.push(caption.dims(), caption.values())?))?;
    Ok(matrix)
}

/// Random weights of an aggregation network. Its logits have a standard deviation of about 1, as after initialisation
/// or a short training.
///
/// # Errors
/// Sizes that do not fit an array.
pub fn weights(seed: u64, config: &AlignmentConfig) -> Result<AggregationWeights> {
    let [width, groups] = [config.width, config.groups];
    // As in the model definition.
    let hidden = ((width as f64 * 0.2) as usize).max(1);
    let normal = |name: &str, shape: &[usize], spread: f64| -> Result<Array> {
        let mut values = vec![0.0; shape.iter().product()];
        fill(seed, name, spread, &mut values);
        Ok(Array::new(shape, values)?)
    };
    Ok(AggregationWeights {
        norm_weight: normal("norm weight", &[width], 1.0)?,
        norm_bias: normal("norm bias", &[width], 0.1)?,
        hidden_weight: normal("hidden weight", &[hidden, width], (width as f64).powf(-0.5))?,
        hidden_bias: normal("hidden bias", &[hidden], 0.1)?,
        group_weight: normal("group weight", &[groups, hidden], (hidden as f64).powf(-0.5))?,
        group_bias: normal("group bias", &[groups], 0.1)?,
        scale: Array::new(&[1, 1, 1], vec![1.0])?,
    })
}
