//! The two containers of `torch.save`: a zip archive, and a stream before PyTorch 1.6.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufReader, Read},
    sync::Arc,
};

use fs_err::{File, os::unix::fs::FileExt};
use zip::{
    ZipArchive, ZipReadOptions,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

use super::{
    Format, Options, Training,
    format::LEGACY_MAGIC,
    options::OptionValue,
    pickle::{Id, MAX_PICKLE_BYTES, Pickle, PickleError, StorageRef, TensorView, Value},
    stored::{ByteRange, Contents, SharedFile, StoredTensor},
};

/// Keys that can hold the state dict, tried in this order. Without any of them the file is the state dict itself.
const STATE_DICTS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// Version of the legacy container; there is only one.
const LEGACY_VERSION: i128 = 1001;

/// Where the storages of a container are.
enum Storages {
    /// Entries `<root>data/<key>` of an archive.
    Zip { archive: Arc<ZipArchive<SharedFile>>, root: String },
    /// Offset in the file by key.
    Legacy(HashMap<Arc<str>, u64>),
}

/// Reads everything but the tensors of a file of `length` bytes.
pub(super) fn open(file: &Arc<File>, length: u64, format: Format) -> Result<Contents, PickleError> {
    let (pickle, mut storages) = match format {
        Format::TorchZip => open_zip(file, length)?,
        _ => open_legacy(file, length)?,
    };
    let state = find_state_dict(&pickle)?;
    let tensors = read_state_dict(&pickle, state, &mut storages, length)?;
    let (mut options, mut training) = (None, Training::default());
    if state != pickle.root() {
        if let Some(opt) = pickle.get(pickle.root(), "opt") {
            options = Options::from_pickle(&pickle, opt).map_err(malformed)?;
        }
        training = read_training(&pickle);
    }
    Ok(Contents { tensors, options, training })
}

/// Reads a pickle that is in no container, to find the names that it asks for.
pub(super) fn check_bare_pickle(file: &Arc<File>, length: u64) -> Result<(), PickleError> {
    Pickle::read(BufReader::new(SharedFile::new(Arc::clone(file), length)), 1).map(drop)
}

fn open_zip(file: &Arc<File>, length: u64) -> Result<(Pickle, Storages), PickleError> {
    let broken = |error: ZipError| malformed(format!("a truncated or damaged zip archive: {error}"));
    // `torch.save` writes the archive at the start of the file. Detecting the start can fail: the crate takes a first
    // record of 76 bytes, which a file stem of 21 characters has, for another structure.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, SharedFile::new(Arc::clone(file), length)).map_err(broken)?;
    let names = archive.file_names().collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let mut pickles = names.iter().filter(|name| name.rsplit('/').next() == Some("data.pkl"));
    let name = match (pickles.next(), pickles.next()) {
        (Some(name), None) => name.to_string(),
        (None, _) => return Err(PickleError::Foreign("a zip archive that torch did not write".to_owned())),
        (Some(_), Some(_)) => return Err(malformed("more than one `data.pkl`")),
    };
    drop(names);
    let root = name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    if let Some(index) = archive.index_for_name(&format!("{root}byteorder"))
        && read_small_entry(&mut archive, index, "byteorder")?.trim_ascii() != b"little"
    {
        return Err(malformed("a byte order that is not little-endian"));
    }
    let index = archive.index_for_name(&name).ok_or_else(|| malformed("no `data.pkl`"))?;
    let bytes = read_small_entry(&mut archive, index, "data.pkl")?;
    let pickle = Pickle::read(bytes.as_slice(), 1)?.0.pop().ok_or_else(|| malformed("no pickle"))?;
    Ok((pickle, Storages::Zip { archive: Arc::new(archive), root }))
}

/// Reads a whole entry, so that its checksum is compared, except where torch left it out. A compressed entry may state
/// any length, so at most [`MAX_PICKLE_BYTES`] and one are read.
fn read_small_entry(archive: &mut ZipArchive<SharedFile>, index: usize, name: &str) -> Result<Vec<u8>, PickleError> {
    let damaged = |error: &dyn std::fmt::Display| malformed(format!("a truncated or damaged `{name}`: {error}"));
    let is_unchecked = archive.by_index_raw(index).map_err(|error| damaged(&error))?.crc32() == 0;
    let options = ZipReadOptions::new().ignore_crc32(is_unchecked);
    let entry = archive.by_index_with_options(index, options).map_err(|error| damaged(&error))?;
    let mut bytes = Vec::new();
    entry.take(MAX_PICKLE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
    Ok(bytes)
}

/// The stream holds five pickles: magic number, version, byte order, the object, and the keys of the storages, which
/// follow in this order, each after its number of elements.
fn open_legacy(file: &Arc<File>, length: u64) -> Result<(Pickle, Storages), PickleError> {
    let (pickles, mut offset) = Pickle::read(BufReader::new(SharedFile::new(Arc::clone(file), length)), 5)?;
    let [magic, version, system, whole, keys] =
        <[Pickle; 5]>::try_from(pickles).map_err(|_| malformed("fewer than five pickles"))?;
    if *magic.value(magic.root()) != Value::Int(LEGACY_MAGIC)
        || *version.value(version.root()) != Value::Int(LEGACY_VERSION)
    {
        return Err(malformed("a magic number or a version that torch never writes"));
    }
    let order = system.get(system.root(), "little_endian").map(|id| system.value(id));
    if order != Some(&Value::Bool(true)) {
        return Err(malformed("a byte order that is not little-endian"));
    }
    let mut sizes: HashMap<&str, &StorageRef> = HashMap::new();
    for storage in whole.storages() {
        let known = sizes.insert(&storage.key, storage);
        if known.is_some_and(|known| (known.dtype, known.elements) != (storage.dtype, storage.elements)) {
            return Err(malformed(format!("the storage `{}` with two sizes", storage.key)));
        }
    }
    let Value::List(items) = keys.value(keys.root()) else { return Err(malformed("no list of storages")) };
    let mut offsets = HashMap::new();
    for &item in items {
        let key = text(&keys, item).ok_or_else(|| malformed("a storage key that is not a text"))?;
        let storage = sizes.get(key).ok_or_else(|| malformed(format!("the storage `{key}` of no tensor")))?;
        let end = offset.saturating_add(8).saturating_add(storage.bytes());
        if end > length {
            let bytes = storage.bytes();
            return Err(malformed(format!("the storage `{key}` of {bytes} bytes, beyond the end of the file")));
        }
        let mut count = [0; 8];
        file.read_exact_at(&mut count, offset)?;
        if u64::from_le_bytes(count) != storage.elements {
            let (stated, elements) = (u64::from_le_bytes(count), storage.elements);
            return Err(malformed(format!(
                "the storage `{key}` of {stated} elements, of which the pickle has {elements}"
            )));
        }
        offsets.insert(Arc::clone(&storage.key), offset + 8);
        offset = end;
    }
    Ok((whole, Storages::Legacy(offsets)))
}

impl Storages {
    /// The bytes of the storage of `view` from its first to its last element. `name` is for errors.
    fn locate(&mut self, name: &str, view: &TensorView) -> Result<ByteRange, PickleError> {
        let size = view.dtype.size().unwrap_or(1);
        let fits = |bytes: u64| usize::try_from(bytes).map_err(|_| malformed(format!("`{name}` of {bytes} bytes")));
        let length = fits(view.span().unwrap_or(u64::MAX).saturating_mul(size as u64))?;
        let start = view.offset.saturating_mul(size as u64);
        let key = &view.storage.key;
        let absent = || malformed(format!("`{name}` without its storage `{key}`"));
        match self {
            Self::Legacy(offsets) => {
                let offset = offsets.get(key).ok_or_else(absent)?.saturating_add(start);
                Ok(ByteRange::File { offset, length })
            }
            Self::Zip { archive, root } => {
                let index = archive.index_for_name(&format!("{root}data/{key}")).ok_or_else(absent)?;
                let entry_size = ZipArchive::clone(archive).by_index_raw(index).map(|entry| entry.size());
                let entry_size = entry_size.map_err(|error| malformed(format!("the storage `{key}`: {error}")))?;
                if entry_size < view.storage.bytes() {
                    let bytes = view.storage.bytes();
                    return Err(malformed(format!(
                        "the storage `{key}` of {entry_size} bytes, of which `{name}` needs {bytes}"
                    )));
                }
                Ok(ByteRange::ZipEntry { archive: Arc::clone(archive), index, offset: start, length })
            }
        }
    }
}

/// The state dict: the root or the value of one of its keys.
fn find_state_dict(pickle: &Pickle) -> Result<Id, PickleError> {
    let root = pickle.root();
    let Value::Dict(pairs) = pickle.value(root) else {
        return Err(PickleError::Foreign(format!("a torch file of the type {}", pickle.value(root).type_name())));
    };
    for key in STATE_DICTS {
        if let Some(state) = pickle.get(root, key)
            && matches!(pickle.value(state), Value::Dict(_))
        {
            return Ok(state);
        }
    }
    if pairs.iter().any(|&(_, value)| matches!(pickle.value(value), Value::Tensor(_))) {
        return Ok(root);
    }
    let keys: Vec<_> = pairs.iter().filter_map(|&(key, _)| text(pickle, key)).take(8).collect();
    Err(PickleError::Foreign(format!("a torch file without a state dict, with the keys {keys:?}")))
}

fn read_state_dict(
    pickle: &Pickle,
    state: Id,
    storages: &mut Storages,
    length: u64,
) -> Result<BTreeMap<String, StoredTensor>, PickleError> {
    let mut tensors = BTreeMap::new();
    for &(key, value) in pickle.pairs(state).unwrap_or_default() {
        let name = text(pickle, key).ok_or_else(|| malformed("a tensor whose name is not a text"))?;
        let Value::Tensor(view) = pickle.value(value) else {
            return Err(malformed(format!(
                "`{name}` in the state dict, of the type {}",
                pickle.value(value).type_name()
            )));
        };
        // The storages are not compressed, so the length of the file limits the memory that a tensor takes.
        let bytes = view.storage.bytes();
        if bytes > length {
            return Err(malformed(format!("`{name}` with a storage of {bytes} bytes in a file of {length}")));
        }
        let tensor = StoredTensor {
            dtype: view.dtype,
            shape: view.shape.clone(),
            strides: Some(view.strides.clone()),
            bytes: storages.locate(name, view)?,
        };
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(malformed(format!("`{name}` twice in the state dict")));
        }
    }
    Ok(tensors)
}

fn read_training(pickle: &Pickle) -> Training {
    let number = |key: &str| match pickle.value(pickle.get(pickle.root(), key)?) {
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
