//! The Python module `laps_zoo._native`, which `laps_zoo` re-exports: models, data sets and evaluation with NumPy arrays.

mod dataset;
mod evaluation;
mod explanation;
mod image;
mod model;
mod worker;

use std::path::PathBuf;

use laps::{describe, hint, onnx::runtime::library};
use pyo3::{PyErr, create_exception, exceptions::PyException, pyfunction};

create_exception!(laps_zoo, LapsError, PyException, "An error of laps-zoo, with the text of the command and its hint.");

/// The exception of an error.
fn exception(error: laps::Error) -> PyErr {
    LapsError::new_err(describe(&error, hint(&error)))
}

/// Adds the folder of ONNX Runtime in the Python environment to its search.
#[pyfunction]
fn add_library_folder(folder: PathBuf) {
    library::add_folder(folder);
}

#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use super::{
        LapsError, add_library_folder,
        dataset::{Dataset, read_dataset},
        evaluation::{Evaluation, Recall, evaluate},
        explanation::Explanation,
        model::Model,
    };

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
