//! The similarity matrix as a file.

use std::{collections::HashMap, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use zoo::array::Array;

use crate::{Error, Result, files::write_whole};

/// Writes `similarities` `(images, captions)` as safetensors, key `sims`: to a temporary file beside `path`, which takes
/// its place when it is complete.
pub fn write(path: &Path, similarities: &Array) -> Result<()> {
    let bytes: Vec<u8> = similarities.values().iter().flat_map(|value| value.to_le_bytes()).collect();
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let view =
        TensorView::new(Dtype::F32, similarities.dims().to_vec(), &bytes).map_err(|error| failed(error.into()))?;
    let bytes = safetensors::serialize([("sims", view)], None::<HashMap<String, String>>)
        .map_err(|error| failed(error.into()))?;
    write_whole(path, &bytes)
}
