//! `Model`

use std::path::PathBuf;

use laps::{Array, EngineChoice, data::LongCaptions, search::Index};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray2, PyReadonlyArray3, ndarray};
use pyo3::prelude::*;

use crate::{LapsError, exception, explanation::Explanation, image::image, worker::ModelThread};

/// A model with its tokenizer and its exact similarity engine.
///
/// Calls release the interpreter. Calls of several threads to one model run one after another.
#[pyclass(frozen, module = "laps_zoo")]
pub(crate) struct Model {
    worker: ModelThread,
    /// Name of the entry.
    #[pyo3(get)]
    entry: String,
    /// Engine, version, device and threads.
    #[pyo3(get)]
    engine: String,
    /// SHA-256 of the checkpoint.
    #[pyo3(get)]
    checkpoint_sha256: String,
}

#[pymethods]
impl Model {
    /// Opens a built-in entry by name, or an entry file by path.
    #[staticmethod]
    #[pyo3(signature = (
        name_or_path, checkpoint=None, device="auto", *, engine="auto", vocabulary=None, threads=None, truncate=false
    ))]
    #[allow(clippy::too_many_arguments, reason = "arguments of Python")]
    fn load(
        py: Python<'_>,
        name_or_path: PathBuf,
        checkpoint: Option<PathBuf>,
        device: &str,
        engine: &str,
        vocabulary: Option<PathBuf>,
        threads: Option<usize>,
        truncate: bool,
    ) -> PyResult<Self> {
        let name = name_or_path.into_os_string().into_string();
        let name = name.map_err(|path| LapsError::new_err(format!("the path of an entry is not UTF-8: {path:?}")))?;
        let mut builder = laps::Model::builder(name)
            .device(device.parse().map_err(|error| exception(laps::Error::Model(error)))?)
            .engine(engine.parse::<EngineChoice>().map_err(exception)?);
        if let Some(path) = checkpoint {
            builder = builder.checkpoint(path);
        }
        if let Some(path) = vocabulary {
            builder = builder.vocabulary(path);
        }
        if let Some(threads) = threads {
            builder = builder.threads(threads);
        }
        if truncate {
            builder = builder.long_captions(LongCaptions::Truncate);
        }
        let description = |model: &laps::Model| {
            let used = model.used();
            (used.entry.clone(), model.engine().to_string(), used.checkpoint_sha256.clone())
        };
        let (worker, (entry, engine, checkpoint_sha256)) = ModelThread::open(py, builder, description)?;
        Ok(Self { worker, entry, engine, checkpoint_sha256 })
    }

    /// Number of captions that were truncated so far.
    #[getter]
    fn truncated_captions(&self, py: Python<'_>) -> PyResult<usize> {
        self.worker.call(py, |model| Ok(model.tokenizer().truncated()))
    }

    /// Patch embeddings `(images, tokens, width)`.
    fn embed_images<'py>(
        &self,
        py: Python<'py>,
        images: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let images = images.iter().map(image).collect::<PyResult<Vec<_>>>()?;
        let array = self.worker.call(py, move |model| model.embed_images(images))?;
        let shape = [array.dims()[0], array.dims()[1], array.dims()[2]];
        array.into_values().into_pyarray(py).reshape(shape)
    }

    /// Word embeddings `(words, width)` of each caption.
    fn embed_captions<'py>(&self, py: Python<'py>, captions: Vec<String>) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
        let arrays = self.worker.call(py, move |model| model.embed_captions(&captions))?;
        arrays.into_iter().map(|array| matrix(py, array)).collect()
    }

    /// Similarities `(images, captions)` of embeddings.
    fn similarities<'py>(
        &self,
        py: Python<'py>,
        images: PyReadonlyArray3<'py, f32>,
        captions: Vec<PyReadonlyArray2<'py, f32>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let images = array(images.as_array().into_dyn())?;
        let captions = captions.iter().map(|words| array(words.as_array().into_dyn())).collect::<PyResult<Vec<_>>>()?;
        matrix(py, self.worker.call(py, move |model| model.similarities(&images, &captions))?)
    }

    /// Similarities of one image with captions.
    fn score<'py>(
        &self,
        py: Python<'py>,
        image: Bound<'py, PyAny>,
        captions: Vec<String>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let image = crate::image::image(&image)?;
        Ok(self.worker.call(py, move |model| model.score(image, &captions))?.into_pyarray(py))
    }

    /// Splits the similarity of an image and a caption into contributions.
    fn explain(&self, py: Python<'_>, image: Bound<'_, PyAny>, caption: String) -> PyResult<Explanation> {
        let image = crate::image::image(&image)?;
        Explanation::new(py, self.worker.call(py, move |model| model.explain(image, &caption))?)
    }

    /// Writes or updates the index file of the images in a folder; returns the number of images in it.
    fn index(&self, py: Python<'_>, folder: PathBuf, index: PathBuf) -> PyResult<usize> {
        self.worker.call(py, move |model| Ok(model.index_folder(folder, index)?.items))
    }

    /// The best images of an index for a caption: name and similarity of each.
    #[pyo3(signature = (index, caption, top=10))]
    fn search(&self, py: Python<'_>, index: PathBuf, caption: String, top: usize) -> PyResult<Vec<(String, f32)>> {
        self.worker.call(py, move |model| model.search(&Index::open(&index)?, &caption, top))
    }

    fn __repr__(&self) -> String {
        format!("<laps_zoo.Model {}, engine {}>", self.entry, self.engine)
    }
}

fn array(values: ndarray::ArrayViewD<'_, f32>) -> PyResult<Array> {
    let array = Array::new(values.shape(), values.iter().copied().collect());
    array.map_err(|error| exception(error.into()))
}

fn matrix(py: Python<'_>, array: Array) -> PyResult<Bound<'_, PyArray2<f32>>> {
    let shape = [array.dims()[0], array.dims()[1]];
    array.into_values().into_pyarray(py).reshape(shape)
}
