//! Any checkpoint as a safetensors file, tensor by tensor.
//!
//! The other way is not offered: `tch` writes archives of TorchScript, no state dicts, `pyferrite`, the one crate found that
//! writes these, is at 0.0.2, and the authors' code needs none, for three lines of Python load a safetensors file into it:
//!
//! ```python
//! from safetensors.torch import load_file
//! state = load_file("model_best.safetensors")
//! model.load_state_dict(state, strict=False)
//! ```

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use fs_err::File;
use serde_json::{Value, json};

use super::{Checkpoint, CheckpointError, NonFinite, source::Stored};
use crate::{
    Error, Result,
    models::{config::ModelConfig, laps},
    params::Parameter,
    store::{BLOCK, Digests, Expected, FileLock, beside, put},
};

/// Bytes that the header is a multiple of, so that every tensor of a type lies at a multiple of its size.
const ALIGNMENT: usize = 8;

/// A file that [`convert`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The file.
    pub path: PathBuf,
    /// Tensors in it: all of the source.
    pub tensors: usize,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// SHA-256 of the source in hexadecimal.
    pub source_sha256: String,
}

/// Writes the checkpoint `input` to `output` as safetensors: the same tensors, bit for bit in their types, with the
/// options, the training facts and the hash of the source as metadata. In memory is one tensor at a time; the file takes
/// its name when it is complete.
///
/// Where `model` is given, the checkpoint has to be one of it: options, names, shapes and types are compared before
/// anything is written, and values that are not finite are found on the way. `source_sha256` saves hashing the source.
///
/// # Errors
/// [`CheckpointError`] for a source that can not be read or does not fit, [`Error::Io`] for an output that can not be
/// written.
pub fn convert(
    input: &Path,
    output: &Path,
    source_sha256: Option<&str>,
    model: Option<&ModelConfig>,
) -> Result<Converted> {
    let checkpoint = Checkpoint::open(input)?;
    let parameters = match model {
        Some(model) => {
            if let Some(options) = checkpoint.options() {
                options.check(model)?;
            }
            let parameters = laps::parameters(model)?;
            checkpoint.check_layout(&parameters)?;
            parameters
        }
        None => Vec::new(),
    };
    let source_sha256 = source_sha256.map_or_else(|| checkpoint.sha256(), |known| Ok(known.to_owned()))?;
    let failed = |source| Error::Io { action: "write", path: output.to_owned(), source };
    let _lock = FileLock::acquire(output, || {}).map_err(failed)?;
    let part = beside(output, ".part");
    let written = write(&checkpoint, &part, &source_sha256, &parameters);
    let placed = written.and_then(|found| put(&part, output).map(|()| found).map_err(failed));
    let (tensors, digests) = placed.inspect_err(|_| {
        let _ = fs_err::remove_file(&part);
    })?;
    let found = digests.finish();
    Ok(Converted { path: output.to_owned(), tensors, bytes: found.bytes, sha256: found.sha256, source_sha256 })
}

fn write(checkpoint: &Checkpoint, part: &Path, source: &str, parameters: &[Parameter]) -> Result<(usize, Digests)> {
    let failed = |source| Error::Io { action: "write", path: part.to_owned(), source };
    let mut tensors: Vec<(&String, &Stored)> = checkpoint.tensors.iter().collect();
    // Wider types first: then each lies at a multiple of its own size. Within a type the order is that of the names.
    tensors.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.dtype.size()));
    let header = header(checkpoint, &tensors, source)?;
    let mut file = File::create(part).map_err(failed)?;
    let mut digests = Digests::new(&Expected::default(), None);
    let mut out = |bytes: &[u8]| {
        // A block is still in the processor's caches when it is written.
        bytes.chunks(BLOCK).try_for_each(|block| {
            digests.update(block);
            file.write_all(block).map_err(failed)
        })
    };
    out(&(header.len() as u64).to_le_bytes())?;
    out(&header)?;
    let mut not_finite = Vec::new();
    let wanted: std::collections::BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    for (name, stored) in &tensors {
        let bytes = checkpoint.bytes(name, stored)?;
        let elements = stored.shape.iter().product();
        if Some(bytes.len()) != stored.dtype.size().and_then(|size| size.checked_mul(elements)) {
            return Err(checkpoint.damaged(format!("`{name}` of {} bytes", bytes.len())).into());
        }
        if wanted.contains(name.as_str())
            && let Some(count @ 1..) = stored.dtype.count_non_finite(&bytes)
        {
            not_finite.push(NonFinite { name: (*name).clone(), count, elements });
        }
        out(&bytes)?;
    }
    checkpoint.refuse_non_finite(parameters.len(), not_finite)?;
    Ok((tensors.len(), digests))
}

/// The header with spaces at its end, as the format allows.
fn header(checkpoint: &Checkpoint, tensors: &[(&String, &Stored)], source: &str) -> Result<Vec<u8>> {
    let mut entries = serde_json::Map::new();
    entries.insert("__metadata__".to_owned(), json!(metadata(checkpoint, source)));
    let mut offset = 0_usize;
    for (name, stored) in tensors {
        let no_type = || CheckpointError::Type { name: (*name).clone(), found: stored.dtype };
        let kind = stored.dtype.safetensors_name().ok_or_else(no_type)?;
        let bytes = stored.shape.iter().try_fold(stored.dtype.size().unwrap_or(0), |all, &size| all.checked_mul(size));
        let end = bytes.and_then(|bytes| offset.checked_add(bytes));
        let end = end.ok_or_else(|| checkpoint.damaged(format!("`{name}` of a size that overflows")))?;
        let described = json!({ "dtype": kind, "shape": stored.shape, "data_offsets": [offset, end] });
        if entries.insert((*name).clone(), described).is_some() {
            return Err(checkpoint.damaged(format!("a tensor of the name `{name}`")).into());
        }
        offset = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(header)
}

/// What the reader takes up again (`opt`, `epoch`, `best_rsum`, `Eiters`), and where the file comes from.
fn metadata(checkpoint: &Checkpoint, source: &str) -> BTreeMap<&'static str, String> {
    let mut facts = BTreeMap::from([
        ("format", "pt".to_owned()),
        ("source_sha256", source.to_owned()),
        ("source_format", checkpoint.format().to_string()),
        ("converted_by", format!("laps-zoo {}", env!("CARGO_PKG_VERSION"))),
    ]);
    if let Some(options) = checkpoint.options().and_then(|options| serde_json::to_string(options).ok()) {
        facts.insert("opt", options);
    }
    let training = checkpoint.training();
    facts.extend(training.epoch.map(|epoch| ("epoch", epoch.to_string())));
    facts.extend(training.best_rsum.map(|rsum| ("best_rsum", rsum.to_string())));
    facts.extend(training.iterations.map(|steps| ("Eiters", steps.to_string())));
    facts
}
