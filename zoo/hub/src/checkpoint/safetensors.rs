//! Checkpoints in the safetensors container.

use std::{collections::BTreeMap, sync::Arc};

use fs_err::File;
use laps_files::safetensors_header;

use super::{
    Options, Training,
    stored::{ByteRange, Contents, StoredLayout, StoredTensor},
};

/// Reads the header of a file of `length` bytes. Also returns the file for its tensors. The error says what is wrong with it. Metadata are free text by the format,
/// so an `opt` that is not a JSON object counts as absent.
pub(super) fn open(mut file: File, length: u64) -> Result<(Arc<File>, Contents), String> {
    let (header, first_byte) = safetensors_header(&mut file, length)?;
    let file = Arc::new(file);
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors() {
        let (start, end) = info.data_offsets;
        let (file, offset) = (Arc::clone(&file), first_byte + start as u64);
        let bytes = ByteRange::File { file, offset, length: end - start };
        let tensor = StoredTensor {
            dtype: info.dtype.into(),
            shape: info.shape.clone(),
            layout: StoredLayout::default(),
            bytes,
        };
        tensors.insert(name, tensor);
    }
    let metadata = header.metadata().as_ref();
    let value = |key: &str| metadata.and_then(|metadata| metadata.get(key)).map(String::as_str);
    let training = Training {
        epoch: value("epoch").and_then(|text| text.parse().ok()),
        best_rsum: value("best_rsum").and_then(|text| text.parse().ok()),
        iterations: value("Eiters").and_then(|text| text.parse().ok()),
    };
    let options = value("opt").and_then(Options::from_json);
    Ok((file, Contents { tensors, options, training, ..Contents::default() }))
}
