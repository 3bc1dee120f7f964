//! The similarity matrix as a file.

use std::{collections::HashMap, io::Write, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use zoo::array::Array;

use crate::{Error, Result};

/// Writes `similarities` `(images, captions)` as safetensors, key `sims`: to a temporary file beside `path`, which takes
/// its place when it is complete.
pub fn write(path: &Path, similarities: &Array) -> Result<()> {
    let bytes: Vec<u8> = similarities.values().iter().flat_map(|value| value.to_le_bytes()).collect();
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let view = TensorView::new(Dtype::F32, similarities.dims().to_vec(), &bytes).map_err(|error| failed(error.into()))?;
    let bytes = safetensors::serialize([("sims", view)], None::<HashMap<String, String>>).map_err(|error| failed(error.into()))?;
    write_whole(path, &bytes)
}

/// Writes a file that is either complete or not there.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let attempt = || -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| Error::Write { path: path.to_owned(), source: source.into() })
}
