//! Images from Python objects.

use std::path::PathBuf;

use laps::{Image, data::image::RgbImage};
use numpy::{PyReadonlyArray3, PyUntypedArrayMethods, ndarray::ArrayView3};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::PyBytes,
};

/// The image of a path, of the bytes of an image file, of a PIL image, or of an array `(height, width, 3)` of uint8.
pub(crate) fn image(value: &Bound<'_, PyAny>) -> PyResult<Image> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Image::Bytes(bytes.as_bytes().to_vec()));
    }
    if let Ok(path) = value.extract::<PathBuf>() {
        return Ok(Image::File(path));
    }
    if let Ok(pixels) = value.extract::<PyReadonlyArray3<'_, u8>>() {
        let [height, width, channels] = [0, 1, 2].map(|axis| pixels.shape()[axis]);
        if channels != 3 {
            return Err(PyValueError::new_err(format!(
                "an array of an image has the wrong shape\n  expected: (height, width, 3)\n  found: ({height}, {width}, \
                 {channels})"
            )));
        }
        return rgb(width, height, values(pixels.as_array()));
    }
    if value.hasattr("convert")? && value.hasattr("tobytes")? {
        let converted = value.call_method1("convert", ("RGB",))?;
        let (width, height) = converted.getattr("size")?.extract()?;
        return rgb(width, height, converted.call_method0("tobytes")?.cast::<PyBytes>()?.as_bytes().to_vec());
    }
    Err(PyTypeError::new_err(format!(
        "not an image\n  expected: a path, bytes of an image file, a PIL image, or an array (height, width, 3) of \
         uint8\n  found: {}",
        value.get_type().qualname()?
    )))
}

fn values(pixels: ArrayView3<'_, u8>) -> Vec<u8> {
    pixels.iter().copied().collect()
}

fn rgb(width: usize, height: usize, pixels: Vec<u8>) -> PyResult<Image> {
    let image = RgbImage::new(width, height, pixels);
    image
        .map(Image::Pixels)
        .ok_or_else(|| PyValueError::new_err(format!("an image of {width} x {height} pixels is empty")))
}
