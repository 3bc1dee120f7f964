//! The words of captions, without padding.

use std::ops::Range;

use crate::{Error, Result};
use laps_model::{array::Array, models::alignment::NORM_EPS};

/// The normalised words of captions, concatenated.
#[derive(Clone, Debug)]
pub struct CaptionMatrix {
    width: usize,
    words: Vec<f32>,
    mean_weights: Vec<f32>,
    starts: Vec<usize>,
}

impl CaptionMatrix {
    /// An empty matrix for embeddings of `width`.
    pub fn new(width: usize) -> Self {
        Self { width, words: Vec::new(), mean_weights: Vec::new(), starts: vec![0] }
    }

    /// Creates a matrix of `captions`, each `(words, width)`.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn from_arrays(captions: &[Array], width: usize) -> Result<Self> {
        let mut matrix = Self::new(width);
        let words = captions.iter().map(|caption| caption.values().len()).sum::<usize>() / width.max(1);
        matrix.words.reserve_exact(words * width);
        matrix.mean_weights.reserve_exact(words);
        matrix.starts.reserve_exact(captions.len());
        for caption in captions {
            matrix.push(caption.dims(), caption.values())?;
        }
        Ok(matrix)
    }

    /// Adds a caption of shape `(words, width)`, without padding.
    ///
    /// # Errors
    /// Another shape, no words, and values that are not finite.
    pub fn push(&mut self, shape: &[usize], values: &[f32]) -> Result<()> {
        let number = self.len();
        let invalid = |expected: String, found: String| Error::Operation { operation: "similarity", expected, found };
        if !matches!(shape, &[words, width] if words > 0 && width == self.width && words * width == values.len()) {
            let expected = format!("words of caption {number} as (at least 1, {})", self.width);
            return Err(invalid(expected, format!("shape {shape:?}")));
        }
        let mut mean = vec![0.0f64; self.width];
        let mut norms = Vec::with_capacity(shape[0]);
        for word in values.chunks_exact(self.width) {
            let norm = norm(word);
            if !norm.is_finite() {
                let found = format!("norm {norm} of a word of caption {number}");
                return Err(invalid("finite embeddings".to_owned(), found));
            }
            mean.iter_mut().zip(word).for_each(|(sum, &value)| *sum += f64::from(value));
            norms.push(norm);
        }
        let count = shape[0] as f64;
        let mean_norm = mean.iter().map(|sum| (sum / count).powi(2)).sum::<f64>().sqrt().max(NORM_EPS);
        for (word, norm) in values.chunks_exact(self.width).zip(norms) {
            let factor = 1.0 / norm;
            self.words.extend(word.iter().map(|&value| (f64::from(value) * factor) as f32));
            self.mean_weights.push((norm / (count * mean_norm)) as f32);
        }
        self.starts.push(self.mean_weights.len());
        Ok(())
    }

    /// Number of captions.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is no caption.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of words of all captions.
    pub fn words(&self) -> usize {
        self.mean_weights.len()
    }

    /// Size of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes of the matrix.
    pub fn bytes(&self) -> usize {
        4 * (self.words.len() + self.mean_weights.len()) + size_of::<usize>() * self.starts.len()
    }

    /// Number of words of the longest caption.
    pub fn longest(&self) -> usize {
        self.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// Range of the words of some captions.
    pub fn span(&self, captions: Range<usize>) -> Range<usize> {
        self.starts[captions.start]..self.starts[captions.end]
    }

    /// Normalised words `(words, width)`.
    pub fn normalised(&self, words: Range<usize>) -> &[f32] {
        &self.words[words.start * self.width..words.end * self.width]
    }

    /// Weight of each word in the normalised mean of its caption: the mean is the sum of the normalised words times these.
    pub fn mean_weights(&self, words: Range<usize>) -> &[f32] {
        &self.mean_weights[words]
    }

    /// End of the block of captions that starts at `start`: as many as have at most `words` words, and at least one.
    pub(super) fn block_end(&self, start: usize, end: usize, words: usize) -> usize {
        let limit = self.starts[start] + words;
        let fitting = self.starts[start + 1..=end].partition_point(|&last| last <= limit);
        start + fitting.max(1)
    }
}

/// Euclidean norm, at least 1e-12. NaN if a value is NaN.
pub(crate) fn norm(values: &[f32]) -> f64 {
    let norm = sum_of(values, |value| f64::from(value) * f64::from(value)).sqrt();
    if norm < NORM_EPS { NORM_EPS } else { norm }
}

/// Sum of `term` over all values, in eight chains that a processor can add at the same time.
#[inline(always)]
pub(super) fn sum_of(values: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    let mut sums = [0.0f64; 8];
    let chunks = values.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|&value| term(value)).sum();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &value)| *sum += term(value));
    }
    sums.iter().sum::<f64>() + rest
}
