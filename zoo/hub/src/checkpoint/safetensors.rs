//! Checkpoints in the safetensors container.

use std::collections::BTreeMap;

use fs_err::File;
use laps_files::safetensors_header;

use super::{
    Options, Training,
    source::{Contents, Handle, Stored},
};

/// Reads what a file of `length` bytes holds; what is wrong with it in words otherwise.
pub(super) fn open(file: &mut File, length: u64) -> Result<Contents, String> {
    let (metadata, begin) = safetensors_header(file, length)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let handle = Handle::At { offset: begin + start as u64, length: end - start };
        tensors.insert(name, Stored { dtype: info.dtype.into(), shape: info.shape.clone(), handle });
    }
    let facts = metadata.metadata().as_ref();
    let fact = |key: &str| facts.and_then(|facts| facts.get(key)).map(String::as_str);
    let options = match fact("opt") {
        Some(text) => Some(Options::from_json(text).ok_or("options that are no JSON object")?),
        None => None,
    };
    let training = Training {
        epoch: fact("epoch").and_then(|text| text.parse().ok()),
        best_rsum: fact("best_rsum").and_then(|text| text.parse().ok()),
        iterations: fact("Eiters").and_then(|text| text.parse().ok()),
    };
    Ok(Contents { tensors, options, training })
}
