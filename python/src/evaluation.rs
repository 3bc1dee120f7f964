//! `evaluate`

use std::borrow::Cow;

use laps::align::{self, CaptionImages, Protocol, Scores};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::exception;

/// Metrics of one direction of retrieval.
#[pyclass(frozen, get_all, module = "laps_zoo")]
#[derive(Clone)]
pub(crate) struct Recall {
    r1: f64,
    r5: f64,
    r10: f64,
    median_rank: f64,
    mean_rank: f64,
}

/// Metrics of a similarity matrix.
#[pyclass(frozen, get_all, module = "laps_zoo")]
pub(crate) struct Evaluation {
    /// Captions for an image.
    i2t: Recall,
    /// Images for a caption.
    t2i: Recall,
    /// Sum of the six recalls.
    rsum: f64,
    protocol: &'static str,
    images: usize,
    captions: usize,
}

/// Metrics of a similarity matrix `(images, captions)`. `image_of` is the image of each caption; without it each image has
/// the same number of consecutive captions.
#[pyfunction]
#[pyo3(signature = (matrix, image_of=None, protocol="f30k"))]
pub(crate) fn evaluate(
    py: Python<'_>,
    matrix: PyReadonlyArray2<'_, f32>,
    image_of: Option<PyReadonlyArray1<'_, i64>>,
    protocol: &str,
) -> PyResult<Evaluation> {
    let [images, captions] = [matrix.shape()[0], matrix.shape()[1]];
    // An index that is negative is as wrong as one that is too large.
    let image_of = image_of.map(|image_of| -> Vec<usize> {
        image_of.as_array().iter().map(|&image| usize::try_from(image).unwrap_or(usize::MAX)).collect()
    });
    // An array in Fortran order is a slice too, of the transposed matrix.
    let rows = matrix.is_c_contiguous().then(|| matrix.as_slice().ok()).flatten();
    let values = rows.map_or_else(|| Cow::Owned(matrix.as_array().iter().copied().collect()), Cow::Borrowed);
    let compute = || -> laps::Result<Evaluation> {
        let pairing = match &image_of {
            Some(image_of) => CaptionImages::new(images, image_of)?,
            None => CaptionImages::uniform(images, captions / images.max(1))?,
        };
        let scores = Scores::new(&values, images, captions)?;
        let protocol: Protocol = protocol.parse()?;
        let result = align::evaluate(&scores, &pairing, protocol)?;
        let [i2t, t2i] = [result.headline.i2t, result.headline.t2i].map(Recall::from);
        Ok(Evaluation { i2t, t2i, rsum: result.headline.rsum, protocol: protocol.name(), images, captions })
    };
    py.detach(compute).map_err(exception)
}

impl From<align::Recall> for Recall {
    fn from(recall: align::Recall) -> Self {
        let align::Recall { r1, r5, r10, median_rank, mean_rank } = recall;
        Self { r1, r5, r10, median_rank, mean_rank }
    }
}

#[pymethods]
impl Recall {
    fn __repr__(&self) -> String {
        let Self { r1, r5, r10, median_rank, mean_rank } = self;
        format!("Recall(r1={r1}, r5={r5}, r10={r10}, median_rank={median_rank}, mean_rank={mean_rank})")
    }
}

#[pymethods]
impl Evaluation {
    fn __repr__(&self) -> String {
        let Self { i2t, t2i, rsum, protocol, images, captions } = self;
        format!(
            "Evaluation(i2t={}, t2i={}, rsum={rsum}, protocol='{protocol}', images={images}, captions={captions})",
            i2t.__repr__(),
            t2i.__repr__()
        )
    }
}
