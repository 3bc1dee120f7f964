//! The two containers of `torch.save`: a zip archive, and before PyTorch 1.6 a stream.
//!
//! The whole pickle goes through our own reader first, which decides what is allowed and what the tensors are called.
//! Only then does the crate `pytorch-reader` find their bytes; it has to see the same tensors.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read},
    path::Path,
};

use fs_err::File;
use pytorch_reader::PytorchReader;

use super::{
    Dtype, Format, Options, Training,
    format::LEGACY_MAGIC,
    options::OptionValue,
    pickle::{Id, MAX_PICKLE_BYTES, Pickle, PickleError, Value},
    source::{Contents, Handle, Stored},
};

/// Keys that hold the state dict, in the order of trying; without any of them the file is the state dict itself.
const STATE_DICTS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// Version of the legacy container, the only one there is.
const LEGACY_VERSION: i128 = 1001;

/// Reads everything but the tensors of a file of `length` bytes.
pub(super) fn open(path: &Path, file: File, length: u64, format: Format) -> Result<Contents, PickleError> {
    let pickle = match format {
        Format::TorchZip => zip_pickle(file)?,
        _ => legacy_pickle(file)?,
    };
    let (key, state) = state_dict(&pickle)?;
    let declared = declared(&pickle, state, length)?;
    let reader = match key {
        Some(key) => PytorchReader::with_top_level_key(path, key),
        None => PytorchReader::new(path),
    };
    let mut found = reader.map_err(|error| malformed(error.to_string()))?.into_tensors();
    let mut tensors = BTreeMap::new();
    for (name, (dtype, shape)) in declared {
        match found.remove(&name) {
            Some(tensor) if Dtype::from(tensor.dtype()) == dtype && tensor.shape() == shape => {
                tensors.insert(name, Stored { dtype, shape, handle: Handle::Torch(tensor) });
            }
            _ => return Err(malformed(format!("a pickle that can be read in two ways at `{name}`"))),
        }
    }
    if let Some(name) = found.keys().min() {
        return Err(malformed(format!("a pickle that can be read in two ways at `{name}`")));
    }
    let whole = key.is_some().then(|| pickle.root());
    let options = whole.and_then(|whole| pickle.get(whole, "opt")).filter(|&id| *pickle.value(id) != Value::None);
    let read = |id| Options::from_pickle(&pickle, id).ok_or_else(|| malformed("an `opt` that holds no options"));
    let options = options.map(read).transpose()?;
    let training = whole.map(|whole| training(&pickle, whole)).unwrap_or_default();
    Ok(Contents { tensors, options, training })
}

/// Looks at a pickle that lies in no container, for the sake of a better message.
pub(super) fn bare(file: File) -> Result<(), PickleError> {
    Pickle::read(BufReader::new(file), 1).map(drop)
}

fn zip_pickle(file: File) -> Result<Pickle, PickleError> {
    let broken = |error: zip::result::ZipError| malformed(format!("a zip archive that is cut off or damaged: {error}"));
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let names = archive.file_names().collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let mut pickles = names.iter().filter(|name| name.rsplit('/').next() == Some("data.pkl"));
    let name = match (pickles.next(), pickles.next()) {
        (Some(name), None) => name.to_string(),
        (None, _) => return Err(PickleError::Foreign("a zip archive that torch did not write".to_owned())),
        (Some(_), Some(_)) => return Err(malformed("more than one `data.pkl`")),
    };
    let index = archive.index_for_name(&name).ok_or_else(|| malformed("no `data.pkl`"))?;
    // torch can leave the checksums out, and writes 0 for them then.
    let unchecked = archive.by_index_raw(index).map_err(broken)?.crc32() == 0;
    let options = zip::ZipReadOptions::new().ignore_crc32(unchecked);
    let entry = archive.by_index_with_options(index, options).map_err(broken)?;
    // Reading to the end compares the checksum; a compressed entry may claim any length, so the limit is ours.
    let mut bytes = Vec::new();
    entry
        .take(MAX_PICKLE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| malformed(format!("a `data.pkl` that is cut off or damaged: {error}")))?;
    Pickle::read(bytes.as_slice(), 1)?.pop().ok_or_else(|| malformed("no pickle"))
}

/// The stream holds five pickles: magic number, version, byte order, the object, the keys of the storages that follow.
fn legacy_pickle(file: File) -> Result<Pickle, PickleError> {
    let pickles = Pickle::read(BufReader::new(file), 5)?;
    let [magic, version, system, whole, _keys] =
        <[Pickle; 5]>::try_from(pickles).map_err(|_| malformed("fewer than five pickles"))?;
    let root = |pickle: &Pickle| pickle.value(pickle.root()).clone();
    if root(&magic) != Value::Int(LEGACY_MAGIC) || root(&version) != Value::Int(LEGACY_VERSION) {
        return Err(malformed("another magic number or version than torch writes"));
    }
    let order = system.get(system.root(), "little_endian").map(|id| system.value(id));
    if order != Some(&Value::Bool(true)) {
        return Err(malformed("a byte order that is not little-endian"));
    }
    Ok(whole)
}

/// The state dict and the key it lies under.
fn state_dict(pickle: &Pickle) -> Result<(Option<&'static str>, Id), PickleError> {
    let root = pickle.root();
    let Value::Dict(pairs) = pickle.value(root) else {
        return Err(PickleError::Foreign(format!("a torch file of the type {}", pickle.value(root).type_name())));
    };
    for key in STATE_DICTS {
        if let Some(state) = pickle.get(root, key)
            && matches!(pickle.value(state), Value::Dict(_))
        {
            return Ok((Some(key), state));
        }
    }
    if pairs.iter().any(|&(_, value)| matches!(pickle.value(value), Value::Tensor { .. })) {
        return Ok((None, root));
    }
    let keys: Vec<_> = pairs.iter().filter_map(|&(key, _)| text(pickle, key)).take(8).collect();
    Err(PickleError::Foreign(format!("a torch file without a state dict, with the keys {keys:?}")))
}

/// Type and shape of every tensor of the state dict.
fn declared(pickle: &Pickle, state: Id, length: u64) -> Result<BTreeMap<String, (Dtype, Vec<usize>)>, PickleError> {
    let mut tensors = BTreeMap::new();
    for &(key, value) in pickle.pairs(state).unwrap_or_default() {
        let name = text(pickle, key).ok_or_else(|| malformed("a tensor whose name is no text"))?;
        let Value::Tensor { dtype, shape, storage_elements } = pickle.value(value) else {
            return Err(malformed(format!(
                "`{name}` in the state dict, of the type {}",
                pickle.value(value).type_name()
            )));
        };
        // The storages are not compressed, so the file bounds what reading a tensor may allocate.
        let bytes = storage_elements.saturating_mul(dtype.size().unwrap_or(1) as u64);
        if bytes > length {
            return Err(malformed(format!("`{name}` with a storage of {bytes} bytes in a file of {length}")));
        }
        if tensors.insert(name.to_owned(), (*dtype, shape.clone())).is_some() {
            return Err(malformed(format!("`{name}` twice in the state dict")));
        }
    }
    Ok(tensors)
}

fn training(pickle: &Pickle, whole: Id) -> Training {
    let number = |key: &str| match pickle.value(pickle.get(whole, key)?) {
        Value::Int(value) => i64::try_from(*value).ok().map(OptionValue::Int),
        Value::Float(value) => Some(OptionValue::Float(*value)),
        _ => None,
    };
    let count = |key: &str| match number(key) {
        Some(OptionValue::Int(value)) => u64::try_from(value).ok(),
        _ => None,
    };
    Training {
        epoch: count("epoch"),
        best_rsum: number("best_rsum").and_then(|value| value.number()),
        iterations: count("Eiters"),
    }
}

fn text(pickle: &Pickle, id: Id) -> Option<&str> {
    match pickle.value(id) {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn malformed(reason: impl Into<String>) -> PickleError {
    PickleError::Malformed(reason.into())
}
