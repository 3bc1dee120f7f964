//! Checkpoints, read strictly.
//!
//! Three containers are recognised by their content: safetensors, and the zip archive and the legacy stream of
//! `torch.save`. A pickle may contain tensors and plain data; it is parsed, never executed, and anything else it asks for is
//! refused before the rest is read. A checkpoint is then compared with the complete parameter list of a model, and one
//! report lists what is missing, unexpected, of another shape or type, or not finite.
//!
//! Opening reads the header or the pickle. Tensors are read one at a time on demand, so that a file of any size needs at most
//! twice the memory of its largest tensor.

mod backbone;
mod convert;
#[cfg(test)]
mod corpus;
mod dtype;
mod error;
mod file;
mod folder;
mod format;
mod hint;
mod names;
mod options;
mod pickle;
mod positions;
mod report;
mod safetensors;
mod shards;
mod stored;
mod torch;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use fs_err::File;
use laps_files::{IoError, sha256_hex};

pub use backbone::BackboneKind;
pub use convert::{Converted, convert, convert_verified};
pub use dtype::Dtype;
pub use error::CheckpointError;
pub use format::Format;
pub use names::{IGNORED, is_ignored};
pub use options::{OptionDifference, OptionValue, Options};
pub use report::{NonFinite, Report, Skipped, WrongShape, WrongType};

use file::{CheckpointFile, FileAccess};
use folder::CheckpointPath;
use format::{FileKind, HEAD_BYTES, detect};
use laps_model::{
    array::Array,
    models::{self, config::ModelConfig},
    params::Parameter,
};
use pickle::{ForeignFile, PickleError};
use stored::{Contents, StoredTensor};

/// An open checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<CheckpointFile>,
    format: Format,
    tensors: BTreeMap<String, StoredTensor>,
    /// Tensors that have another size in the model than in the file, and their values there.
    resized: BTreeMap<String, Array>,
    removed_prefixes: BTreeSet<String>,
    skipped: Vec<Skipped>,
    outside: usize,
    options: Option<Options>,
    training: Training,
    /// Hash of the files, once it is computed. Clones share it.
    sha256: Arc<OnceLock<String>>,
}

/// Training progress at the time the checkpoint was written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Training {
    /// `epoch`: finished epochs.
    pub epoch: Option<u64>,
    /// `best_rsum`: best sum of the six recalls so far, in percent, on the validation data.
    pub best_rsum: Option<f64>,
    /// `Eiters`: optimizer steps.
    pub iterations: Option<u64>,
}

impl Checkpoint {
    /// Opens a checkpoint. The state dict is the value of `model`, `state_dict` or `model_state_dict`, or the whole file.
    /// Prefixes of wrappers are removed from the names, see [`removed_prefixes`](Self::removed_prefixes). Entries that are
    /// not tensors are skipped, see [`skipped`](Self::skipped). `path` can be a folder with one checkpoint in it, such as a
    /// Hugging Face model in one or several files or an unpacked `.pth` file, or the list of the files of a model.
    ///
    /// # Errors
    /// [`CheckpointError::Foreign`] for another kind of file, [`CheckpointError::Damaged`] for one that is truncated or
    /// inconsistent, [`CheckpointError::Refused`] for a pickle that asks for more than data, [`CheckpointError::Shards`] for
    /// a model in several files of which one is missing or does not fit.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        match folder::resolve(path.into())? {
            CheckpointPath::File(path) => match File::open(&path) {
                Ok(file) => Self::read_file(path, file.into()),
                Err(source) => Err(CheckpointError::Io(IoError::new("read", path, source))),
            },
            CheckpointPath::ShardList(path) => shards::open(&path),
            CheckpointPath::Unpacked(folder) => {
                let files = unpacked_files(&folder)
                    .map_err(|source| CheckpointError::Io(IoError::new("read", &folder, source)))?;
                let length = files.iter().map(|file| file.length).sum();
                let format = Format::TorchZip;
                let contents = torch::open_folder(&folder, length).map_err(|error| refuse(error, &folder, format))?;
                Self::assemble(folder, files, format, contents)
            }
        }
    }

    /// As [`open`](Self::open), for a `file` that is open already. `path` names it in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read_file(path: impl Into<PathBuf>, file: std::fs::File) -> Result<Self, CheckpointError> {
        let path = path.into();
        let (file, format, contents) = read_contents(&path, File::from_parts(file, &path))?;
        Self::assemble(path, vec![file], format, contents)
    }

    /// A checkpoint of the `contents` of `files`.
    fn assemble(
        path: PathBuf,
        files: Vec<CheckpointFile>,
        format: Format,
        contents: Contents,
    ) -> Result<Self, CheckpointError> {
        let (tensors, removed_prefixes) = names::unwrap(contents.tensors).map_err(|name| {
            let reason = format!("`{name}` twice, with and without the prefix of a wrapper");
            CheckpointError::Damaged { path: path.clone(), format, reason }
        })?;
        let Contents { skipped, outside, options, training, .. } = contents;
        let (resized, sha256) = (BTreeMap::new(), Arc::default());
        Ok(Self {
            path,
            files,
            format,
            tensors,
            resized,
            removed_prefixes,
            skipped,
            outside,
            options,
            training,
            sha256,
        })
    }

    /// The file; for a model in several files their list, for an unpacked one its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of its files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }

    /// Its container format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The options that it was trained with, if any.
    pub fn options(&self) -> Option<&Options> {
        self.options.as_ref()
    }

    /// Its training progress.
    pub fn training(&self) -> Training {
        self.training
    }

    /// Prefixes that were removed from the names of tensors: `module.` of data-parallel wrappers, `_orig_mod.` of
    /// `torch.compile`, `model.` of trainers.
    pub fn removed_prefixes(&self) -> impl Iterator<Item = &str> {
        self.removed_prefixes.iter().map(String::as_str)
    }

    /// Entries of the state dict that are skipped, in the order of the file: what is not a tensor, and tensors that are not
    /// a strided array of numbers, such as sparse and quantised ones.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The prefixes that were removed and the entries of the state dict that are skipped, in words, one note each.
    pub fn notes(&self) -> Vec<String> {
        let prefixes: Vec<String> = self.removed_prefixes().map(|prefix| format!("`{prefix}`")).collect();
        let removed = (!prefixes.is_empty())
            .then(|| format!("removed from the names in the checkpoint: {}", prefixes.join(", ")));
        let skipped = self.skipped.first().map(|first| {
            format!("skipped in the state dict of the checkpoint: {}, such as {first}", self.skipped.len())
        });
        removed.into_iter().chain(skipped).collect()
    }

    /// Number of tensors outside the state dict, such as the moments of an optimizer. They are skipped too.
    pub fn tensors_outside(&self) -> usize {
        self.outside
    }

    /// Name, element type and shape of every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, &[usize])> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.dtype, stored.shape.as_slice()))
    }

    /// SHA-256 of the whole file in lower-case hexadecimal; for several files, that of the lines that `sha256sum` prints for
    /// them in their folder, sorted by name. The first call reads all of them.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn sha256(&self) -> Result<String, CheckpointError> {
        if let Some(sha256) = self.sha256.get() {
            return Ok(sha256.clone());
        }
        let sha256 = self.hash()?;
        Ok(self.sha256.get_or_init(|| sha256).clone())
    }

    fn hash(&self) -> Result<String, CheckpointError> {
        let hash = |file: &CheckpointFile| {
            file.sha256().map_err(|source| CheckpointError::Io(IoError::new("read", &file.path, source)))
        };
        if let [file] = self.files.as_slice() {
            return hash(file);
        }
        let folder = if self.path.is_dir() { Some(self.path.as_path()) } else { self.path.parent() };
        let name = |file: &CheckpointFile| {
            let path = folder.and_then(|folder| file.path.strip_prefix(folder).ok()).unwrap_or(&file.path);
            path.display().to_string()
        };
        let lines = self.files.iter().map(|file| Ok((name(file), hash(file)?)));
        let mut lines = lines.collect::<Result<Vec<_>, CheckpointError>>()?;
        lines.sort();
        let text: String = lines.into_iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect();
        Ok(sha256_hex(text.as_bytes()))
    }

    /// The encoder `kind` of a LAPS model from this file, a Hugging Face base model with or without a task head. The tensors
    /// get the names that a LAPS model has for them.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] where two tensors get the same name.
    pub fn backbone(&self, kind: BackboneKind) -> Result<Self, CheckpointError> {
        let tensors = kind.rename(&self.tensors).map_err(|name| self.damaged(format!("two tensors for `{name}`")))?;
        Ok(Self { tensors, ..self.clone() })
    }

    /// The checkpoint as one of `model`: options and parameters are checked, as by [`check`](Self::check), after
    /// [`resize_positions`](Self::resize_positions).
    ///
    /// # Errors
    /// [`CheckpointError::Options`], and those of [`check`](Self::check).
    pub fn for_model(self, model: &ModelConfig) -> Result<Self, CheckpointError> {
        if let Some(options) = self.options() {
            options.check(model)?;
        }
        let checkpoint = self.resize_positions(model)?;
        checkpoint.check(&models::parameters(model)?)?;
        Ok(checkpoint)
    }

    /// Resizes the position embeddings of the image encoder to those of `model`, if its configuration asks for it and they
    /// are of another image size. [`convert`] writes them as they are in the file.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn resize_positions(mut self, model: &ModelConfig) -> Result<Self, CheckpointError> {
        let Some(stored) = self.tensors.get(positions::NAME) else { return Ok(self) };
        let Some(sides) = positions::sides(&model.image, &stored.shape, &models::parameters(model)?) else {
            return Ok(self);
        };
        let resized = positions::resize(&self.read(positions::NAME)?, sides)?;
        self.resized.insert(positions::NAME.to_owned(), resized);
        Ok(self)
    }

    /// Compares the checkpoint with the parameters of a model. Reads every parameter once to find values that are not finite.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] with every difference; [`CheckpointError::Damaged`] or [`CheckpointError::Io`] for a
    /// tensor that cannot be read.
    pub fn check(&self, model: &[Parameter]) -> Result<(), CheckpointError> {
        let mut report = self.compare(model);
        for Parameter { name, .. } in model {
            let Some(stored) = self.tensors.get(name).filter(|stored| stored.dtype.is_float()) else { continue };
            let bytes = self.bytes(name, stored)?;
            if let Some(count @ 1..) = stored.dtype.count_non_finite(&bytes) {
                let elements = stored.shape.iter().product();
                report.non_finite.push(NonFinite { name: name.clone(), count, elements });
            }
        }
        if report.is_empty() { Ok(()) } else { Err(CheckpointError::Mismatch(Box::new(report))) }
    }

    /// As [`check`](Self::check), by names, shapes and types alone. Reads no tensor.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] with every difference.
    pub fn check_layout(&self, model: &[Parameter]) -> Result<(), CheckpointError> {
        let report = self.compare(model);
        if report.is_empty() { Ok(()) } else { Err(CheckpointError::Mismatch(Box::new(report))) }
    }

    fn compare(&self, model: &[Parameter]) -> Report {
        let mut report = self.empty_report(model.len());
        for Parameter { name, shape, .. } in model {
            let Some(stored) = self.tensors.get(name) else {
                report.missing.push(name.clone());
                continue;
            };
            let found = self.resized.get(name).map_or(stored.shape.as_slice(), Array::dims);
            if found != shape {
                let (expected, found) = (shape.clone(), found.to_vec());
                report.shapes.push(WrongShape { name: name.clone(), expected, found });
            }
            if !stored.dtype.is_float() {
                report.types.push(WrongType { name: name.clone(), found: stored.dtype });
            }
        }
        let wanted: BTreeSet<_> = model.iter().map(|parameter| parameter.name.as_str()).collect();
        let unexpected = self.tensors.keys().filter(|name| !wanted.contains(name.as_str()) && !is_ignored(name));
        report.unexpected = unexpected.cloned().collect();
        report
    }

    fn empty_report(&self, parameters: usize) -> Report {
        let removed_prefixes = self.removed_prefixes.iter().cloned().collect();
        let skipped = self.skipped.clone();
        Report { path: self.path.clone(), removed_prefixes, parameters, skipped, ..Report::default() }
    }

    fn refuse_non_finite(&self, parameters: usize, non_finite: Vec<NonFinite>) -> Result<(), CheckpointError> {
        if non_finite.is_empty() {
            return Ok(());
        }
        let report = Report { non_finite, ..self.empty_report(parameters) };
        Err(CheckpointError::Mismatch(Box::new(report)))
    }

    /// The tensor `name` as f32.
    ///
    /// # Errors
    /// [`CheckpointError::Absent`], [`CheckpointError::Type`] where its elements are not floats,
    /// [`CheckpointError::Damaged`] or [`CheckpointError::Io`] where it cannot be read.
    pub fn read(&self, name: &str) -> Result<Array, CheckpointError> {
        if let Some(resized) = self.resized.get(name) {
            return Ok(resized.clone());
        }
        let absent = || CheckpointError::Absent { name: name.to_owned() };
        let stored = self.tensors.get(name).ok_or_else(absent)?;
        let wrong = || CheckpointError::Type { name: name.to_owned(), found: stored.dtype };
        if !stored.dtype.is_float() {
            return Err(wrong());
        }
        let values = stored.dtype.decode(&self.bytes(name, stored)?).ok_or_else(wrong)?;
        Array::new(&stored.shape, values).map_err(|error| self.damaged(format!("`{name}`: {error}")))
    }

    fn bytes(&self, name: &str, stored: &StoredTensor) -> Result<Vec<u8>, CheckpointError> {
        stored.read().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                self.damaged(format!("`{name}`, which cannot be read: {error}"))
            }
            _ => CheckpointError::Io(IoError::new("read", &self.path, error)),
        })
    }

    fn damaged(&self, reason: String) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.clone(), format: self.format, reason }
    }
}

/// Reads everything but the tensors of the file at `path`.
fn read_contents(path: &Path, mut file: File) -> Result<(CheckpointFile, Format, Contents), CheckpointError> {
    let unreadable = |source| CheckpointError::Io(IoError::new("read", path, source));
    let length = file.metadata().map_err(unreadable)?.len();
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;

    let foreign = |found: &str| CheckpointError::Foreign { path: path.to_owned(), found: found.to_owned(), hint: None };
    let (format, read) = match detect(&head) {
        FileKind::Checkpoint(Format::SafeTensors) => {
            (Format::SafeTensors, safetensors::open(file, length).map_err(PickleError::Malformed))
        }
        FileKind::Checkpoint(format) => {
            let file = Arc::new(file);
            (format, torch::open(&file, length, format).map(|contents| (file, contents)))
        }
        FileKind::BarePickle => {
            return Err(match torch::check_bare_pickle(&Arc::new(file), length) {
                Err(PickleError::Global(name)) => CheckpointError::Refused { path: path.to_owned(), name },
                Err(_) => foreign("a file of unknown kind"),
                Ok(()) => foreign("a pickle without tensors"),
            });
        }
        FileKind::Foreign(found) => return Err(foreign(found)),
    };
    let (file, contents) = read.map_err(|error| refuse(error, path, format))?;
    Ok((CheckpointFile::open(path, file, length), format, contents))
}

/// The error of a container at `path`.
fn refuse(error: PickleError, path: &Path, format: Format) -> CheckpointError {
    let path = path.to_owned();
    match error {
        PickleError::Global(name) => CheckpointError::Refused { path, name },
        PickleError::Malformed(reason) => CheckpointError::Damaged { path, format, reason },
        PickleError::Foreign(ForeignFile { found, hint }) => CheckpointError::Foreign { path, found, hint },
    }
}

/// The files of an unpacked `.pth` file, sorted.
fn unpacked_files(folder: &Path) -> io::Result<Vec<CheckpointFile>> {
    let mut files = Vec::new();
    for folder in [folder.to_owned(), folder.join("data")] {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs_err::read_dir(&folder)? {
            let path = entry?.path();
            let metadata = fs_err::metadata(&path)?;
            if metadata.is_file() {
                files.push(CheckpointFile { path, length: metadata.len(), source: FileAccess::Closed });
            }
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}
