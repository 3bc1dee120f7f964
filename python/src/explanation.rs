//! `Explanation`

use laps::ExplainedPair;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::prelude::*;

/// The similarity of an image and a caption, split into contributions.
#[pyclass(frozen, get_all, module = "laps_zoo")]
pub(crate) struct Explanation {
    /// The similarity, from -0.2 to 2.
    similarity: f64,
    /// Contribution of the class token to the similarity.
    class_token: f64,
    /// Word pieces of the caption.
    words: Vec<String>,
    /// Contribution of each patch to the similarity, `(rows, columns)`.
    patches: Py<PyArray2<f64>>,
    /// Whether the caption keeps each patch, `(rows, columns)`.
    kept: Py<PyArray2<bool>>,
    /// Similarity of each word with the token of the image that it matches.
    word_similarities: Py<PyArray1<f64>>,
    /// Contribution of each patch to the match of each word, `(words, rows, columns)`.
    word_patches: Py<PyArray3<f64>>,
}

impl Explanation {
    pub(crate) fn new(py: Python<'_>, pair: ExplainedPair) -> PyResult<Self> {
        let ExplainedPair { words, grid: [rows, columns], explanation } = pair;
        let patches: Vec<f64> = explanation.patches.iter().map(|patch| patch.contribution).collect();
        let kept: Vec<bool> = explanation.patches.iter().map(|patch| patch.kept).collect();
        let similarities: Vec<f64> = explanation.words.iter().map(|word| word.similarity).collect();
        let word_patches: Vec<f64> = explanation.words.iter().flat_map(|word| word.patches.iter().copied()).collect();
        Ok(Self {
            similarity: explanation.similarity,
            class_token: explanation.class_token,
            patches: patches.into_pyarray(py).reshape([rows, columns])?.unbind(),
            kept: kept.into_pyarray(py).reshape([rows, columns])?.unbind(),
            word_similarities: similarities.into_pyarray(py).unbind(),
            word_patches: word_patches.into_pyarray(py).reshape([words.len(), rows, columns])?.unbind(),
            words,
        })
    }
}

#[pymethods]
impl Explanation {
    fn __repr__(&self) -> String {
        format!("<laps_zoo.Explanation of {} words, similarity {:.4}>", self.words.len(), self.similarity)
    }
}
