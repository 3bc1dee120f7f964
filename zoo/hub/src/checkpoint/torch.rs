//! The two containers of `torch.save`: a zip archive, and a stream before PyTorch 1.6.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use fs_err::{File, os::unix::fs::FileExt};
use laps_files::is_file_name;
use zip::{
    ZipArchive, ZipReadOptions,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

use super::{
    Format, Options, Skipped, Training,
    format::{LEGACY_MAGIC, is_checkpoint_name},
    options::OptionValue,
    pickle::{ForeignFile, Id, MAX_PICKLE_BYTES, Pickle, PickleError, StorageRef, TensorView, Value},
    stored::{ByteRange, Contents, SharedFile, StoredLayout, StoredTensor},
};

/// Keys that can hold the state dict, tried in this order. Without any of them the file is the state dict itself.
const STATE_DICTS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// Version of the legacy container; there is only one.
const LEGACY_VERSION: i128 = 1001;

/// Largest storage in a file that is smaller. `torch.save` does not compress, but other programs that pack an archive again
/// do. Without a limit a short file could ask for any amount of memory. The largest matrix of a LAPS model has 94 MB.
const MAX_COMPRESSED_BYTES: u64 = 256 << 20;

/// Where the storages of a container are.
enum Storages {
    /// Entries `<root>data/<key>` of an archive.
    Zip { archive: Arc<ZipArchive<SharedFile>>, root: String, is_big_endian: bool },
    /// Files `data/<key>` of an unpacked archive.
    Folder { folder: PathBuf, is_big_endian: bool },
    /// Offset in the file by key.
    Legacy { file: Arc<File>, offsets: HashMap<Arc<str>, u64> },
}

/// Reads everything but the tensors of a file of `length` bytes.
pub(super) fn open(file: &Arc<File>, length: u64, format: Format) -> Result<Contents, PickleError> {
    let (pickle, storages) = match format {
        Format::TorchZip => open_zip(file, length)?,
        _ => open_legacy(file, length)?,
    };
    read_contents(&pickle, storages, length)
}

/// As [`open`], for a folder with the unpacked contents of a zip archive, `length` bytes in all.
pub(super) fn open_folder(folder: &Path, length: u64) -> Result<Contents, PickleError> {
    if folder.join("constants.pkl").exists() {
        return Err(torch_script());
    }
    let order = match fs_err::read(folder.join("byteorder")) {
        Ok(order) => Some(order),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let is_big_endian = is_big_endian(order.as_deref())?;
    let file = BufReader::new(File::open(folder.join("data.pkl"))?.take(MAX_PICKLE_BYTES + 1));
    let pickle = Pickle::read(file, 1)?.0.pop().ok_or_else(|| malformed("no pickle"))?;
    read_contents(&pickle, Storages::Folder { folder: folder.to_owned(), is_big_endian }, length)
}

fn read_contents(pickle: &Pickle, mut storages: Storages, length: u64) -> Result<Contents, PickleError> {
    let state = find_state_dict(pickle)?;
    let (tensors, skipped) = read_state_dict(pickle, state, &mut storages, length)?;
    let outside = count_tensors(pickle, state);
    let (mut options, mut training) = (None, Training::default());
    if state != pickle.root() {
        if let Some(opt) = pickle.get(pickle.root(), "opt") {
            options = Options::from_pickle(pickle, opt).map_err(malformed)?;
        }
        training = read_training(pickle);
    }
    Ok(Contents { tensors, skipped, outside, options, training })
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
    let names = archive.file_names().map(|name| name.map(Cow::into_owned));
    let names = names.collect::<Result<Vec<String>, _>>().map_err(broken)?;
    let root = find_root(&names)?;
    let order = archive.index_for_name(&format!("{root}byteorder"));
    let order = order.map(|index| read_small_entry(&mut archive, index, "byteorder")).transpose()?;
    let is_big_endian = is_big_endian(order.as_deref())?;
    let name = format!("{root}data.pkl");
    let index = archive.index_for_name(&name).ok_or_else(|| malformed("no `data.pkl`"))?;
    let bytes = read_small_entry(&mut archive, index, "data.pkl")?;
    let pickle = Pickle::read(bytes.as_slice(), 1)?.0.pop().ok_or_else(|| malformed("no pickle"))?;
    Ok((pickle, Storages::Zip { archive: Arc::new(archive), root, is_big_endian }))
}

/// Reads the content of `byteorder`. Before PyTorch 2.1 it was not written.
fn is_big_endian(order: Option<&[u8]>) -> Result<bool, PickleError> {
    match order.map(<[u8]>::trim_ascii) {
        None | Some(b"little") => Ok(false),
        Some(b"big") => Ok(true),
        Some(other) => Err(malformed(format!("a byte order `{}`", other.escape_ascii()))),
    }
}

/// The folder of `data.pkl`, with a slash at its end unless it is empty. Like torch, prefers the folder of the first entry.
fn find_root(names: &[String]) -> Result<String, PickleError> {
    let root = |name: &String| name.strip_suffix("data.pkl").map(str::to_owned);
    let is_root = |root: &String| root.is_empty() || root.ends_with('/');
    let roots: Vec<String> = names.iter().filter_map(root).filter(is_root).collect();
    let first = names.first().and_then(|name| name.split_once('/')).map(|(folder, _)| format!("{folder}/"));
    let root = match roots.as_slice() {
        [root] => root.clone(),
        [] => return Err(PickleError::Foreign(describe_archive(names))),
        roots => roots
            .iter()
            .find(|&root| Some(root) == first.as_ref())
            .cloned()
            .ok_or_else(|| malformed("more than one `data.pkl`"))?,
    };
    if names.contains(&format!("{root}constants.pkl")) {
        return Err(torch_script());
    }
    Ok(root)
}

fn torch_script() -> PickleError {
    PickleError::Foreign(ForeignFile {
        found: "a TorchScript archive, which is a program".to_owned(),
        hint: Some("save its weights in Python: `torch.save(torch.jit.load(FILE).state_dict(), NEW)`".to_owned()),
    })
}

/// An archive that is no checkpoint. Google Drive sends a folder, or several files, as such an archive.
fn describe_archive(names: &[String]) -> ForeignFile {
    let inner: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_checkpoint_name(name)).collect();
    match inner.as_slice() {
        [] => ForeignFile { found: "a zip archive that torch did not write".to_owned(), hint: None },
        [first, rest @ ..] => ForeignFile {
            found: match rest.len() {
                0 => format!("a zip archive with the file `{first}` in it"),
                more => format!("a zip archive with the file `{first}` and {more} more in it"),
            },
            hint: Some("unpack the archive, and use the checkpoint in it".to_owned()),
        },
    }
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
    // torch writes the storages in little-endian order on every machine, and does not read this one.
    if !matches!(system.value(system.root()), Value::Dict(_)) {
        return Err(malformed("no description of the machine"));
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
    Ok((whole, Storages::Legacy { file: Arc::clone(file), offsets }))
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
            Self::Legacy { file, offsets } => {
                let offset = offsets.get(key).ok_or_else(absent)?.saturating_add(start);
                Ok(ByteRange::File { file: Arc::clone(file), offset, length })
            }
            Self::Folder { folder, .. } => {
                let path = folder.join("data").join(&**key);
                let file = fs_err::metadata(&path).ok().filter(|file| file.is_file() && is_file_name(key));
                check_size(file.ok_or_else(absent)?.len(), name, view)?;
                Ok(ByteRange::Path { path, offset: start, length })
            }
            Self::Zip { archive, root, .. } => {
                let index = archive.index_for_name(&format!("{root}data/{key}")).ok_or_else(absent)?;
                let entry_size = ZipArchive::clone(archive).by_index_raw(index).map(|entry| entry.size());
                let entry_size = entry_size.map_err(|error| malformed(format!("the storage `{key}`: {error}")))?;
                check_size(entry_size, name, view)?;
                Ok(ByteRange::ZipEntry { archive: Arc::clone(archive), index, offset: start, length })
            }
        }
    }
}

/// Checks that a storage of `found` bytes is large enough for the tensor `name`.
fn check_size(found: u64, name: &str, view: &TensorView) -> Result<(), PickleError> {
    let (key, bytes) = (&view.storage.key, view.storage.bytes());
    if found < bytes {
        return Err(malformed(format!("the storage `{key}` of {found} bytes, of which `{name}` needs {bytes}")));
    }
    Ok(())
}

/// The state dict: the first of [`STATE_DICTS`] that has tensors, or the root.
fn find_state_dict(pickle: &Pickle) -> Result<Id, PickleError> {
    let root = pickle.root();
    let foreign = |found: String| Err(PickleError::Foreign(ForeignFile { found, hint: None }));
    let Value::Dict(pairs) = pickle.value(root) else {
        return foreign(format!("a torch file of the type {}", pickle.value(root).type_name()));
    };
    let is_state_dict = |&id: &Id| match pickle.value(id) {
        Value::Dict(pairs) => pairs.iter().any(|&(_, value)| matches!(pickle.value(value), Value::Tensor(_))),
        _ => false,
    };
    let named = STATE_DICTS.iter().filter_map(|key| pickle.get(root, key)).find(is_state_dict);
    if let Some(state) = named.or_else(|| Some(root).filter(is_state_dict)) {
        return Ok(state);
    }
    let keys: Vec<_> = pairs.iter().filter_map(|&(key, _)| text(pickle, key)).take(8).collect();
    foreign(format!("a torch file without a state dict, with the keys {keys:?}"))
}

type StateDict = (BTreeMap<String, StoredTensor>, Vec<Skipped>);

fn read_state_dict(pickle: &Pickle, state: Id, storages: &mut Storages, length: u64) -> Result<StateDict, PickleError> {
    let (mut tensors, mut skipped) = (BTreeMap::new(), Vec::new());
    let is_big_endian =
        matches!(storages, Storages::Zip { is_big_endian: true, .. } | Storages::Folder { is_big_endian: true, .. });
    for &(key, value) in pickle.pairs(state).unwrap_or_default() {
        let value = pickle.value(value);
        let (Some(name), Value::Tensor(view)) = (text(pickle, key), value) else {
            let name = text(pickle, key).map_or_else(|| pickle.value(key).type_name().to_owned(), str::to_owned);
            skipped.push(Skipped { name, found: value.type_name().to_owned() });
            continue;
        };
        let bytes = view.storage.bytes();
        if bytes > length.max(MAX_COMPRESSED_BYTES) {
            return Err(malformed(format!("`{name}` with a storage of {bytes} bytes in a file of {length}")));
        }
        let layout = StoredLayout {
            strides: Some(view.strides.clone()),
            // torch reverses the elements of the storage, whose type can be untyped bytes.
            reversed: view.storage.dtype.part_size().filter(|&part| is_big_endian && part > 1),
            is_conjugate: view.is_conjugate,
            is_negative: view.is_negative,
        };
        let tensor =
            StoredTensor { dtype: view.dtype, shape: view.shape.clone(), layout, bytes: storages.locate(name, view)? };
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(malformed(format!("`{name}` twice in the state dict")));
        }
    }
    Ok((tensors, skipped))
}

/// Number of tensors outside the state dict, such as the moments of an optimizer. Each is counted once.
fn count_tensors(pickle: &Pickle, state: Id) -> usize {
    let mut seen = HashSet::from([state]);
    let (mut left, mut count) = (vec![pickle.root()], 0);
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        count += usize::from(matches!(pickle.value(id), Value::Tensor(_)));
        match pickle.value(id) {
            Value::List(items) | Value::Tuple(items) => left.extend(items),
            _ => left.extend(pickle.pairs(id).unwrap_or_default().iter().map(|&(_, value)| value)),
        }
    }
    count
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
