//! Conversion of any checkpoint to safetensors, one tensor at a time.
//!
//! There is no conversion to `.pth`: `tch` writes TorchScript archives instead of state dicts, and the authors' code loads
//! a safetensors file in three lines:
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

use laps_files::{IoError, OutputFile, TensorHeader, hex, safetensors_head};
use laps_model::{
    models::{self, config::ModelConfig},
    params::Parameter,
};
use sha2::{Digest, Sha256};

use super::{Checkpoint, CheckpointError, NonFinite, Skipped, stored::StoredTensor};

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Bytes between two requests to flush to the disk: many for one disk operation, few compared with a checkpoint.
const SYNC_BYTES: usize = 64 << 20;

/// A converted checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The written file.
    pub path: PathBuf,
    /// Number of written tensors.
    pub tensors: usize,
    /// Entries of the state dict that are not written, see [`Checkpoint::skipped`], and tensors of an element type that
    /// safetensors lacks.
    pub skipped: Vec<Skipped>,
    /// Number of tensors outside the state dict, which are not written.
    pub tensors_outside: usize,
    /// Size of the written file.
    pub bytes: u64,
    /// SHA-256 of the source in hexadecimal.
    pub source_sha256: String,
    /// Prefixes that were removed from the names of tensors, see [`Checkpoint::removed_prefixes`].
    pub removed_prefixes: Vec<String>,
}

/// Converts the checkpoint `input` to the safetensors file `output`. The tensors keep their element types, bit for bit;
/// options, training progress and the hash of the source become metadata. One tensor is in memory at a time. The source is
/// hashed in parallel, and the file gets its name when it is complete. An output that cannot go back, such as a pipe, gets
/// the same bytes; the source is hashed before it then. See [`OutputFile`] for what `output` can be.
///
/// With `model` the checkpoint has to fit it: options, names, shapes and types are compared before anything is written,
/// and values that are not finite are found while the tensors are copied.
///
/// # Errors
/// [`CheckpointError`] for a source that cannot be read or does not fit, and for an output that cannot be written or that another
/// process is writing.
pub fn convert(input: &Path, output: &Path, model: Option<&ModelConfig>) -> Result<Converted, CheckpointError> {
    convert_to(input, output, None, model).map(|(converted, _)| converted)
}

/// As [`convert`], for a source whose SHA-256 is known. Hashes the written file instead and returns that hash too. Two
/// tensors are in memory at a time. The written file contains the hash of its source, so [`convert`] could hash both only
/// one after the other.
///
/// # Errors
/// As [`convert`].
pub fn convert_verified(
    input: &Path,
    output: &Path,
    source_sha256: &str,
    model: Option<&ModelConfig>,
) -> Result<(Converted, String), CheckpointError> {
    convert_to(input, output, Some(source_sha256), model)
}

/// Returns the SHA-256 of the source where it was unknown, of the output otherwise.
fn convert_to(
    input: &Path,
    output: &Path,
    source_sha256: Option<&str>,
    model: Option<&ModelConfig>,
) -> Result<(Converted, String), CheckpointError> {
    let mut checkpoint = Checkpoint::open(input)?;
    let canonical = |path: &Path| path.canonicalize().ok();
    if let Some(target) = canonical(output)
        && checkpoint.files.iter().any(|file| canonical(&file.path).as_ref() == Some(&target))
    {
        return Err(CheckpointError::SameFile { path: output.to_owned() });
    }
    let parameters = match model {
        Some(model) => {
            if let Some(options) = checkpoint.options() {
                options.check(model)?;
            }
            let parameters = models::parameters(model)?;
            checkpoint = checkpoint.resize_positions(model)?;
            checkpoint.check_layout(&parameters)?;
            parameters
        }
        None => Vec::new(),
    };
    let failed = |source| CheckpointError::Io(IoError::new("write", output, source));
    let mut file = OutputFile::create(output)?.exclusive()?;
    // The header, which comes first, has the hash of the source.
    let early = match source_sha256 {
        None if file.regular_file().is_none() => Some(checkpoint.sha256()?),
        _ => None,
    };
    let source_sha256 = source_sha256.or(early.as_deref());
    let is_writable = |stored: &StoredTensor| stored.dtype.safetensors_name().is_some();
    let (mut tensors, unwritable): (Vec<_>, Vec<_>) =
        checkpoint.tensors.iter().partition(|(_, stored)| is_writable(stored));
    // Wider types first, so that each tensor is aligned to its element size. Within a type, sorted by name.
    tensors.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.dtype.size()));
    let (bytes, sha256) = write(&checkpoint, &tensors, &mut file, source_sha256, &parameters, failed)?;
    file.persist()?;
    let unwritable = unwritable.into_iter().map(|(name, stored)| Skipped {
        name: name.clone(),
        found: format!("{}, which safetensors has no type for", stored.dtype),
    });
    let converted = Converted {
        path: output.to_owned(),
        tensors: tensors.len(),
        skipped: checkpoint.skipped.iter().cloned().chain(unwritable).collect(),
        tensors_outside: checkpoint.outside,
        bytes,
        source_sha256: source_sha256.unwrap_or(&sha256).to_owned(),
        removed_prefixes: checkpoint.removed_prefixes().map(str::to_owned).collect(),
    };
    Ok((converted, sha256))
}

/// Writes `file`, and returns its size and the hash of [`convert_to`]. Reading and writing, hashing, and flushing to the
/// disk run in parallel.
fn write(
    checkpoint: &Checkpoint,
    tensors: &[(&String, &StoredTensor)],
    file: &mut OutputFile,
    source_sha256: Option<&str>,
    parameters: &[Parameter],
    failed: impl Fn(io::Error) -> CheckpointError,
) -> Result<(u64, String), CheckpointError> {
    let disk = file.regular_file().map(|file| file.try_clone()).transpose().map_err(&failed)?;
    thread::scope(|scope| {
        // The channel has no capacity, so that at most the tensor being written and the one being hashed are in memory.
        let (to_hash, blocks) = mpsc::sync_channel(0);
        let hash = scope.spawn(move || match source_sha256 {
            Some(_) => Ok(hash_blocks(&blocks)),
            None => checkpoint.sha256(),
        });
        let (to_sync, requests) = mpsc::sync_channel(1);
        // Otherwise the disk is idle until everything is written, and then everything waits for it.
        let synced = scope
            .spawn(move || requests.iter().try_for_each(|()| disk.as_ref().map_or(Ok(()), |disk| disk.sync_data())));
        let to_hash = source_sha256.is_some().then_some(to_hash);
        let mut output = ConvertedFile { file, to_hash, to_sync, bytes: 0, unsynced: 0 };
        // A hash that is not known yet gets a placeholder of the same length.
        let placeholder = "0".repeat(SHA256_DIGITS);
        output.write(header(checkpoint, tensors, source_sha256.unwrap_or(&placeholder))?).map_err(&failed)?;
        copy(checkpoint, tensors, parameters, |bytes| output.write(bytes).map_err(&failed))?;
        let ConvertedFile { file, to_hash, to_sync, bytes, .. } = output;
        // The threads end when their channels close.
        drop((to_hash, to_sync));
        synced.join().unwrap_or_else(|panic| resume_unwind(panic)).map_err(&failed)?;
        let sha256: String = hash.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        if source_sha256.is_none() {
            let header = header(checkpoint, tensors, &sha256)?;
            file.rewind().and_then(|()| file.write_all(&header)).map_err(&failed)?;
        }
        Ok((bytes, sha256))
    })
}

/// A file that is written, hashed and flushed to the disk.
struct ConvertedFile<'a> {
    file: &'a mut OutputFile,
    /// Blocks for the hashing thread, if there is one.
    to_hash: Option<mpsc::SyncSender<Vec<u8>>>,
    /// Requests for the flushing thread.
    to_sync: mpsc::SyncSender<()>,
    bytes: u64,
    unsynced: usize,
}

impl ConvertedFile<'_> {
    fn write(&mut self, block: Vec<u8>) -> io::Result<()> {
        self.file.write_all(&block)?;
        self.bytes += block.len() as u64;
        self.unsynced += block.len();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            // A busy thread needs no second request, and a failure is reported at the end.
            let _ = self.to_sync.try_send(());
        }
        match &self.to_hash {
            Some(to_hash) => to_hash.send(block).map_err(|_| io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }
}

fn hash_blocks(blocks: &mpsc::Receiver<Vec<u8>>) -> String {
    hex(&blocks.iter().fold(Sha256::new(), |hash, block| hash.chain_update(block)).finalize())
}

/// Passes the bytes of the tensors to `out`, one after another. Those of `parameters` have to be finite.
fn copy(
    checkpoint: &Checkpoint,
    tensors: &[(&String, &StoredTensor)],
    parameters: &[Parameter],
    mut out: impl FnMut(Vec<u8>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let wanted: BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let mut not_finite = Vec::new();
    for (name, stored) in tensors {
        let bytes = checkpoint.bytes(name, stored)?;
        let elements = stored.shape.iter().product();
        if Some(bytes.len()) != stored.dtype.size().and_then(|size| size.checked_mul(elements)) {
            return Err(checkpoint.damaged(format!("`{name}` of {} bytes", bytes.len())));
        }
        if wanted.contains(name.as_str())
            && let Some(count @ 1..) = stored.dtype.count_non_finite(&bytes)
        {
            not_finite.push(NonFinite { name: (*name).clone(), count, elements });
        }
        out(bytes)?;
    }
    checkpoint.refuse_non_finite(parameters.len(), not_finite)
}

/// The start of the file.
fn header(
    checkpoint: &Checkpoint,
    tensors: &[(&String, &StoredTensor)],
    source_sha256: &str,
) -> Result<Vec<u8>, CheckpointError> {
    let mut described = Vec::with_capacity(tensors.len());
    for &(name, stored) in tensors {
        let StoredTensor { dtype, shape, .. } = stored;
        let no_such_type = || CheckpointError::Type { name: name.clone(), found: *dtype };
        let bytes = shape.iter().try_fold(dtype.size().unwrap_or(0), |all, &size| all.checked_mul(size));
        let bytes = bytes.ok_or_else(|| checkpoint.damaged(format!("`{name}`, whose size overflows")))?;
        let dtype = dtype.safetensors_name().ok_or_else(no_such_type)?;
        described.push(TensorHeader { name, dtype, shape, bytes });
    }
    safetensors_head(&described, &metadata(checkpoint, source_sha256)).map_err(|reason| checkpoint.damaged(reason))
}

/// The values that the reader restores (`opt`, `epoch`, `best_rsum`, `Eiters`), and the source of the file.
fn metadata(checkpoint: &Checkpoint, source_sha256: &str) -> BTreeMap<&'static str, String> {
    let mut metadata = BTreeMap::from([
        ("format", "pt".to_owned()),
        ("source_sha256", source_sha256.to_owned()),
        ("source_format", checkpoint.format().to_string()),
        ("converted_by", format!("laps-zoo {}", env!("CARGO_PKG_VERSION"))),
    ]);
    if let Some(options) = checkpoint.options().and_then(|options| serde_json::to_string(options).ok()) {
        metadata.insert("opt", options);
    }
    let training = checkpoint.training();
    metadata.extend(training.epoch.map(|epoch| ("epoch", epoch.to_string())));
    metadata.extend(training.best_rsum.map(|rsum| ("best_rsum", rsum.to_string())));
    metadata.extend(training.iterations.map(|steps| ("Eiters", steps.to_string())));
    metadata
}
