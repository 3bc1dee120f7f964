//! Checkpoints, read strictly.
//!
//! Three containers are known by their content: safetensors, and the zip archive and the legacy stream of `torch.save`.
//! What a file asks for is judged before anything else is read of it: a pickle may hold tensors and plain data, and is
//! never run. A checkpoint is then held against the whole parameter list of a model, and one report says what is missing,
//! unexpected, of another shape or type, or not finite.
//!
//! Opening reads the header or the pickle; tensors are read one at a time when they are asked for, so that a file of any
//! size needs no more memory than its largest tensor twice over.

mod backbone;
mod convert;
mod dtype;
mod error;
mod format;
mod hint;
mod names;
mod options;
mod pickle;
mod report;
mod safetensors;
mod source;
mod torch;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use fs_err::File;
use sha2::{Digest, Sha256};

pub use backbone::{Backbone, HEADS};
pub use convert::{Converted, convert, convert_verified};
pub use dtype::Dtype;
pub use error::CheckpointError;
pub use format::Format;
pub use names::{IGNORED, is_ignored};
pub use options::{Difference, OptionValue, Options};
pub use report::{NonFinite, Report, WrongShape, WrongType};

use format::{HEAD, Sniffed, sniff};
use laps_model::{array::Array, params::Parameter};
use pickle::PickleError;
use source::Stored;

/// An open checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: Arc<Mutex<File>>,
    format: Format,
    tensors: BTreeMap<String, Stored>,
    options: Option<Options>,
    training: Training,
}

/// How far the training had come when the checkpoint was written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Training {
    /// `epoch`: epochs that were finished.
    pub epoch: Option<u64>,
    /// `best_rsum`: sum of the six recalls in percent, the best so far on the data that it was watched on.
    pub best_rsum: Option<f64>,
    /// `Eiters`: optimizer steps.
    pub iterations: Option<u64>,
}

impl Checkpoint {
    /// Opens a checkpoint. The state dict lies under `model`, `state_dict` or `model_state_dict`, or is the whole file;
    /// steps of data-parallel wrappers are taken out of the names.
    ///
    /// # Errors
    /// [`CheckpointError::Foreign`] for another kind of file, [`CheckpointError::Damaged`] for one that is cut off or
    /// inconsistent, [`CheckpointError::Refused`] for a pickle that asks for more than data.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let path = path.into();
        let unreadable = |source| CheckpointError::Io { path: path.clone(), source };
        let mut file = File::open(&path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut head = Vec::new();
        file.by_ref().take(HEAD).read_to_end(&mut head).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let shared = file.try_clone().map_err(unreadable)?;

        let foreign = |found: &str| CheckpointError::Foreign { path: path.clone(), found: found.to_owned() };
        let (format, contents) = match sniff(&head) {
            Sniffed::Checkpoint(Format::SafeTensors) => {
                let contents = safetensors::open(&mut file, length).map_err(PickleError::Malformed);
                (Format::SafeTensors, contents)
            }
            Sniffed::Checkpoint(format) => (format, torch::open(&path, file, length, format)),
            Sniffed::Pickle => {
                return Err(match torch::bare(file) {
                    Err(PickleError::Global(name)) => CheckpointError::Refused { path, name },
                    Err(_) => foreign("a file of an unknown kind"),
                    Ok(()) => foreign("a pickle without tensors"),
                });
            }
            Sniffed::Foreign(found) => return Err(foreign(found)),
        };
        let contents = contents.map_err(|error| match error {
            PickleError::Global(name) => CheckpointError::Refused { path: path.clone(), name },
            PickleError::Malformed(reason) => CheckpointError::Damaged { path: path.clone(), format, reason },
            PickleError::Foreign(found) => foreign(&found),
        })?;
        let mut tensors = BTreeMap::new();
        for (name, stored) in contents.tensors {
            let name = names::unwrapped(&name);
            if tensors.contains_key(&name) {
                let reason = format!("`{name}` twice, with and without `module.`");
                return Err(CheckpointError::Damaged { path, format, reason });
            }
            tensors.insert(name, stored);
        }
        let (options, training) = (contents.options, contents.training);
        Ok(Self { path, file: Arc::new(Mutex::new(shared)), format, tensors, options, training })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its container.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The options it was trained with, where it has them.
    pub fn options(&self) -> Option<&Options> {
        self.options.as_ref()
    }

    /// How far its training had come.
    pub fn training(&self) -> Training {
        self.training
    }

    /// Name, element type and shape of every tensor, in the order of the names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, &[usize])> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.dtype, stored.shape.as_slice()))
    }

    /// SHA-256 of the whole file in hexadecimal digits. Reads all of it.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn sha256(&self) -> Result<String, CheckpointError> {
        let unreadable = |source| CheckpointError::Io { path: self.path.clone(), source };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.rewind().map_err(unreadable)?;
        let mut hasher = Sha256::new();
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(read) => hasher.update(&block[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The same file as the encoder `kind` of a LAPS model: a Hugging Face base model, with or without its prefix and
    /// task heads, under the names that the whole model has for it.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] where two tensors get the same name.
    pub fn backbone(&self, kind: Backbone) -> Result<Self, CheckpointError> {
        let tensors = kind.rename(&self.tensors).map_err(|name| self.damaged(format!("two tensors for `{name}`")))?;
        Ok(Self { tensors, ..self.clone() })
    }

    /// Holds the checkpoint against the parameters of a model. Reads every parameter once, to find values that are not
    /// finite.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] with everything that differs; [`CheckpointError::Damaged`] or
    /// [`CheckpointError::Io`] for a tensor that can not be read.
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

    /// The same by names, shapes and types alone, without reading a tensor.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] with everything that differs.
    pub fn check_layout(&self, model: &[Parameter]) -> Result<(), CheckpointError> {
        let report = self.compare(model);
        if report.is_empty() { Ok(()) } else { Err(CheckpointError::Mismatch(Box::new(report))) }
    }

    fn compare(&self, model: &[Parameter]) -> Report {
        let mut report = Report { path: self.path.clone(), parameters: model.len(), ..Report::default() };
        for Parameter { name, shape, .. } in model {
            let Some(stored) = self.tensors.get(name) else {
                report.missing.push(name.clone());
                continue;
            };
            if stored.shape != *shape {
                let (expected, found) = (shape.clone(), stored.shape.clone());
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

    fn refuse_non_finite(&self, parameters: usize, non_finite: Vec<NonFinite>) -> Result<(), CheckpointError> {
        if non_finite.is_empty() {
            return Ok(());
        }
        let report = Report { path: self.path.clone(), parameters, non_finite, ..Report::default() };
        Err(CheckpointError::Mismatch(Box::new(report)))
    }

    /// The tensor `name` as f32.
    ///
    /// # Errors
    /// [`CheckpointError::Absent`], [`CheckpointError::Type`] where its elements are no floats,
    /// [`CheckpointError::Damaged`] or [`CheckpointError::Io`] where it can not be read.
    pub fn read(&self, name: &str) -> Result<Array, CheckpointError> {
        let absent = || CheckpointError::Absent { name: name.to_owned() };
        let stored = self.tensors.get(name).ok_or_else(absent)?;
        let wrong = || CheckpointError::Type { name: name.to_owned(), found: stored.dtype };
        if !stored.dtype.is_float() {
            return Err(wrong());
        }
        let values = stored.dtype.decode(&self.bytes(name, stored)?).ok_or_else(wrong)?;
        Array::new(&stored.shape, values).map_err(|error| self.damaged(format!("`{name}`: {error}")))
    }

    fn bytes(&self, name: &str, stored: &Stored) -> Result<Vec<u8>, CheckpointError> {
        stored.bytes(&self.file).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                self.damaged(format!("`{name}` that can not be read: {error}"))
            }
            _ => CheckpointError::Io { path: self.path.clone(), source: error },
        })
    }

    fn damaged(&self, reason: String) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.clone(), format: self.format, reason }
    }
}
