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
    collections::{BTreeMap, BTreeSet},
    io::{self, Seek, Write},
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use fs_err::File;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Checkpoint, CheckpointError, NonFinite, source::Stored};
use crate::{Error, Result};
use laps_files::{Expected, FileLock, beside, digest_file, hex, put};
use laps_model::{
    models::{self, config::ModelConfig},
    params::Parameter,
};

/// Bytes that the header is a multiple of, so that every tensor of a type lies at a multiple of its size.
const ALIGNMENT: usize = 8;
/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Bytes after which the disk is told to begin: much for one operation of it, little beside a checkpoint.
const SYNCED: usize = 64 << 20;

/// A file that [`convert`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The file.
    pub path: PathBuf,
    /// Tensors in it: all of the source.
    pub tensors: usize,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the source in hexadecimal.
    pub source_sha256: String,
}

/// Writes the checkpoint `input` to `output` as safetensors: the same tensors, bit for bit in their types, with the
/// options, the training facts and the hash of the source as metadata. In memory is one tensor at a time; the source is
/// hashed beside that, and the file takes its name when it is complete.
///
/// Where `model` is given, the checkpoint has to be one of it: options, names, shapes and types are compared before
/// anything is written, and values that are not finite are found on the way.
///
/// # Errors
/// [`CheckpointError`] for a source that can not be read or does not fit, [`Error::Io`] for an output that can not be
/// written.
pub fn convert(input: &Path, output: &Path, model: Option<&ModelConfig>) -> Result<Converted> {
    let (tensors, bytes, source_sha256) = place(input, output, None, model)?;
    Ok(Converted { path: output.to_owned(), tensors, bytes, source_sha256 })
}

/// The same for a source whose SHA-256 is known. It is the hash of the file written that is computed here, and returned
/// with it: the other comes first in that file, so that both would take one after the other. In memory are two tensors.
///
/// # Errors
/// As for [`convert`].
pub fn convert_verified(
    input: &Path,
    output: &Path,
    source_sha256: &str,
    model: Option<&ModelConfig>,
) -> Result<(Converted, String)> {
    let (tensors, bytes, sha256) = place(input, output, Some(source_sha256), model)?;
    let source_sha256 = source_sha256.to_owned();
    Ok((Converted { path: output.to_owned(), tensors, bytes, source_sha256 }, sha256))
}

/// Tensors and bytes of the file written, and the hash of the source, or of the file where `source` is that of the source.
fn place(
    input: &Path,
    output: &Path,
    source: Option<&str>,
    model: Option<&ModelConfig>,
) -> Result<(usize, u64, String)> {
    let checkpoint = Checkpoint::open(input)?;
    let parameters = match model {
        Some(model) => {
            if let Some(options) = checkpoint.options() {
                options.check(model)?;
            }
            let parameters = models::parameters(model)?;
            checkpoint.check_layout(&parameters)?;
            parameters
        }
        None => Vec::new(),
    };
    let failed = |source| Error::Io { action: "write", path: output.to_owned(), source };
    let _lock = FileLock::acquire(output, || {}).map_err(failed)?;
    let part = beside(output, ".part");
    let written = write(&checkpoint, &part, source, &parameters);
    let placed = written.and_then(|found| put(&part, output).map(|()| found).map_err(failed));
    placed.inspect_err(|_| {
        let _ = fs_err::remove_file(&part);
    })
}

/// See [`place`]. What takes time goes on at once: reading and writing here, hashing and the disk on their own threads.
fn write(
    checkpoint: &Checkpoint,
    part: &Path,
    source: Option<&str>,
    parameters: &[Parameter],
) -> Result<(usize, u64, String)> {
    let failed = |source| Error::Io { action: "write", path: part.to_owned(), source };
    let mut tensors: Vec<(&String, &Stored)> = checkpoint.tensors.iter().collect();
    // Wider types first: then each lies at a multiple of its own size. Within a type the order is that of the names.
    tensors.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.dtype.size()));
    let file = File::create(part).map_err(failed)?;
    let disk = file.try_clone().map_err(failed)?;
    thread::scope(|scope| {
        // Without room in the channel no more than the tensor being written and the one being hashed are in memory.
        let (hashed, blocks) = mpsc::sync_channel(0);
        let hash = scope.spawn(move || if source.is_some() { Ok(hash_of(&blocks)) } else { source_hash(checkpoint) });
        let (wrote, writes) = mpsc::sync_channel(1);
        // Otherwise the disk idles until all is written, and then everybody waits for it.
        let synced = scope.spawn(move || writes.iter().try_for_each(|()| disk.sync_data()));
        let hashed = source.is_some().then_some(hashed);
        let mut output = Output { file, hashed, wrote, bytes: 0, unsynced: 0 };
        // A hash that is not known yet has its place already.
        output.write(header(checkpoint, &tensors, source.unwrap_or(&"0".repeat(SHA256_DIGITS)))?).map_err(failed)?;
        copy(checkpoint, &tensors, parameters, |bytes| output.write(bytes).map_err(failed))?;
        let Output { mut file, hashed, wrote, bytes, .. } = output;
        // The threads end when there is nothing more for them.
        drop((hashed, wrote));
        synced.join().unwrap_or_else(|panic| resume_unwind(panic)).map_err(failed)?;
        let hash: String = hash.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        if source.is_none() {
            let header = header(checkpoint, &tensors, &hash)?;
            file.rewind().and_then(|()| file.write_all(&header)).map_err(failed)?;
        }
        Ok((tensors.len(), bytes, hash))
    })
}

/// A file that is written, hashed and brought to the disk.
struct Output {
    file: File,
    /// Where blocks are hashed; without it they are not.
    hashed: Option<mpsc::SyncSender<Vec<u8>>>,
    /// Tells the thread that waits for the disk.
    wrote: mpsc::SyncSender<()>,
    bytes: u64,
    unsynced: usize,
}

impl Output {
    fn write(&mut self, block: Vec<u8>) -> io::Result<()> {
        self.file.write_all(&block)?;
        self.bytes += block.len() as u64;
        self.unsynced += block.len();
        if self.unsynced >= SYNCED {
            self.unsynced = 0;
            // Whether it is busy or has failed is seen in the end.
            let _ = self.wrote.try_send(());
        }
        match &self.hashed {
            // The thread ends only when there is nothing more to hash.
            Some(hashed) => hashed.send(block).map_err(|_| io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }
}

fn hash_of(blocks: &mpsc::Receiver<Vec<u8>>) -> String {
    hex(&blocks.iter().fold(Sha256::new(), |hash, block| hash.chain_update(block)).finalize())
}

/// The file is opened anew, so that tensors are read meanwhile.
fn source_hash(checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let found = digest_file(&checkpoint.path, &Expected::default());
    found.map(|found| found.sha256).map_err(|source| CheckpointError::Io { path: checkpoint.path.clone(), source })
}

/// Reads the tensors one after another; those of `parameters` have to be finite.
fn copy(
    checkpoint: &Checkpoint,
    tensors: &[(&String, &Stored)],
    parameters: &[Parameter],
    mut out: impl FnMut(Vec<u8>) -> Result<()>,
) -> Result<()> {
    let wanted: BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let mut not_finite = Vec::new();
    for (name, stored) in tensors {
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
        out(bytes)?;
    }
    Ok(checkpoint.refuse_non_finite(parameters.len(), not_finite)?)
}

/// The header behind its length, with spaces at its end, as the format allows.
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
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.append(&mut header);
    Ok(head)
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
