//! `read_dataset`

use std::path::PathBuf;

use laps::{data::Split, embedded, hub::registry};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;

use crate::exception;

/// The captions of a split and its images.
#[pyclass(frozen, get_all, module = "laps_zoo")]
pub(crate) struct Dataset {
    /// Path of each image.
    images: Vec<PathBuf>,
    captions: Vec<String>,
    /// Index of the image of each caption.
    image_of: Py<PyArray1<i64>>,
    split: String,
}

/// Reads a split of the data of an entry. Scenes of an entry that draws them are drawn into the cache without `data`.
#[pyfunction]
#[pyo3(signature = (entry, data=None, split=None))]
pub(crate) fn read_dataset(
    py: Python<'_>,
    entry: &str,
    data: Option<PathBuf>,
    split: Option<&str>,
) -> PyResult<Dataset> {
    let read = || -> laps::Result<_> {
        let entry = registry::find(entry)?;
        let paths = embedded::data_paths(&entry, data.as_deref(), split)?;
        let split = Split::open(&paths.captions, split.unwrap_or(&entry.data.test))?;
        Ok((split.image_files(&paths.images), split))
    };
    let (files, split) = py.detach(read).map_err(exception)?;
    let image_of: Vec<i64> = split.image_of().iter().map(|&image| image as i64).collect();
    Ok(Dataset {
        images: files.into_iter().map(|file| file.path).collect(),
        captions: split.captions().to_vec(),
        image_of: image_of.into_pyarray(py).unbind(),
        split: split.name().to_owned(),
    })
}

#[pymethods]
impl Dataset {
    fn __repr__(&self) -> String {
        let Self { images, captions, split, .. } = self;
        format!("<laps_zoo.Dataset {split}: {} images, {} captions>", images.len(), captions.len())
    }
}
