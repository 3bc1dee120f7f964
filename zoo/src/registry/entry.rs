//! One entry of the registry.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, DataConfig, DataPaths, Manifest, Origin, Protocol, PublishedTable, RegistryError,
    canonical::{canonical, sha256},
    document::Document,
    reference::{Reference, resolve},
};
use crate::{
    Error,
    models::config::ModelConfig,
    train::{TrainConfig, TrainError},
};

/// A model with its data, its checkpoint and the recalls that are published for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The name; for a built-in entry also that of its file.
    pub name: String,
    /// The model.
    pub model: ModelConfig,
    /// The data.
    pub data: DataConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// The published checkpoint, where there is one: a key of [`Manifest::checkpoints`].
    pub checkpoint: Option<String>,
    /// Where the entry comes from.
    pub origin: Origin,
    /// SHA-256 of the text of the entry file.
    pub text_sha256: String,
    /// SHA-256 of [`Entry::canonical`].
    pub config_sha256: String,
    published: Vec<PublishedTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    name: String,
    model: ModelConfig,
    data: DataConfig,
    #[serde(default)]
    train: TrainConfig,
    checkpoint: Option<String>,
    references: Option<BTreeMap<String, Reference>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overridden {
    train: TrainConfig,
}

/// What decides which numbers come out.
#[derive(Serialize)]
struct Effective<'a> {
    model: &'a ModelConfig,
    data: &'a DataConfig,
}

impl Entry {
    /// Reads the text of an entry file and checks everything in it.
    pub fn from_yaml(origin: Origin, text: &str) -> Result<Self, RegistryError> {
        let document = Document { origin: &origin, text };
        let EntryFile { name, model, data, train, checkpoint, references } = document.read()?;
        check_name(&document, &name)?;
        model.check().map_err(|error| refuse_model(&document, error))?;
        data.check(&document)?;
        train.check().map_err(|error| refuse_train(&document, error))?;
        if let Some(checkpoint) = &checkpoint {
            let known = Manifest::embedded()?.checkpoints;
            if !known.contains_key(checkpoint) {
                let known: Vec<_> = known.keys().map(String::as_str).collect();
                return Err(document.refuse_word(&["checkpoint"], &known, checkpoint));
            }
        }
        let published = resolve(&document, &references.unwrap_or_default(), &data.protocol)?;
        let config_sha256 = sha256(canonical(&Effective { model: &model, data: &data })?.as_bytes());
        let text_sha256 = sha256(text.as_bytes());
        Ok(Self { name, model, data, train, checkpoint, origin, text_sha256, config_sha256, published })
    }

    /// The effective configuration: `model` and `data` with every default filled in, as JSON without white space and with
    /// sorted keys.
    ///
    /// Formatting, comments, the order of keys and left-out defaults do not change it. Neither do the name, the
    /// checkpoint's source and the references, which have no part in what is computed.
    pub fn canonical(&self) -> Result<String, RegistryError> {
        Ok(canonical(&Effective { model: &self.model, data: &self.data })?)
    }

    /// Changes `train` by an override `train.KEY=VALUE`, the value written as in an entry file.
    ///
    /// # Errors
    /// [`TrainError::Override`] for another form; [`RegistryError`] for a key or value that can not be used.
    pub fn set(&mut self, assignment: &str) -> crate::Result<()> {
        let wrong = || TrainError::Override { found: assignment.to_owned() };
        let (key, value) = assignment.split_once('=').ok_or_else(wrong)?;
        let key = key.trim().strip_prefix("train.").filter(|key| !key.is_empty()).ok_or_else(wrong)?;
        let value: serde_json::Value = serde_yaml::from_str(value).map_err(|_| wrong())?;
        let mut train = serde_json::to_value(&self.train).map_err(RegistryError::from)?;
        if let Some(fields) = train.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
        // JSON is YAML, and so has the same errors.
        let text = serde_json::json!({ "train": train }).to_string();
        let document = Document { origin: &Origin::Option("--set"), text: &text };
        let Overridden { train } = document.read()?;
        train.check().map_err(|error| refuse_train(&document, error))?;
        self.train = train;
        Ok(())
    }

    /// What a run of this entry is: `model`, `data` and `train` with every default filled in and what else decides its
    /// result, as JSON without white space and with sorted keys, and the hash of that.
    pub fn run_configuration(&self, more: &serde_json::Value) -> Result<(String, String), RegistryError> {
        let Self { name, model, data, train, .. } = self;
        let whole = serde_json::json!({ "name": name, "model": model, "data": data, "train": train, "run": more });
        let text = canonical(&whole)?;
        let hash = sha256(text.as_bytes());
        Ok((text, hash))
    }

    /// The entry with every default filled in, as an entry file.
    pub fn to_yaml(&self) -> Result<String, RegistryError> {
        let Self { name, model, data, train, checkpoint, .. } = self;
        let whole =
            serde_json::json!({ "name": name, "model": model, "data": data, "train": train, "checkpoint": checkpoint });
        serde_yaml::to_string(&whole).map_err(|source| RegistryError::Yaml { origin: self.origin.clone(), source })
    }

    /// The tables that are published for this entry under `protocol`; none for a protocol that is not its own.
    pub fn published(&self, protocol: Protocol) -> Vec<PublishedTable> {
        self.published.iter().filter(|table| table.protocol == protocol).cloned().collect()
    }

    /// Where the published checkpoint comes from, if there is one.
    pub fn checkpoint_source(&self) -> Result<Option<Checkpoint>, RegistryError> {
        let Some(name) = &self.checkpoint else { return Ok(None) };
        Ok(Manifest::embedded()?.checkpoints.remove(name))
    }

    /// The paths of the data below `root`, or else below the folder of the entry file.
    pub fn data_paths(&self, root: Option<&Path>) -> Result<DataPaths, RegistryError> {
        let folder = match (root, &self.origin) {
            (Some(root), _) => root,
            (None, Origin::File(path)) => path.parent().unwrap_or(Path::new("")),
            (None, Origin::BuiltIn(_) | Origin::Option(_)) => {
                let DataPaths { captions, images, vocab } = self.data.below(Path::new(""));
                return Err(RegistryError::NoDataRoot { entry: self.name.clone(), holds: [captions, images, vocab] });
            }
        };
        Ok(self.data.below(folder))
    }
}

/// Names become file names of reports and checkpoints.
fn check_name(document: &Document<'_>, name: &str) -> Result<(), RegistryError> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.chars().all(plain) {
        return Ok(());
    }
    let expected = "ASCII letters, digits, `_`, `-` and `.`, a letter or digit first";
    Err(document.refuse(&["name"], expected, format!("`{name}`")))
}

fn refuse_train(document: &Document<'_>, error: Error) -> RegistryError {
    match error {
        Error::Config { key, expected, found } => {
            document.refuse(&key.split('.').collect::<Vec<_>>(), expected, format!("`{found}`"))
        }
        other => document.refuse(&["train"], "a recipe that can be followed", other.to_string()),
    }
}

fn refuse_model(document: &Document<'_>, error: Error) -> RegistryError {
    match error {
        Error::Config { key, expected, found } => {
            let keys: Vec<_> = std::iter::once("model").chain(key.split('.')).collect();
            document.refuse(&keys, expected, format!("`{found}`"))
        }
        other => document.refuse(&["model"], "a model that can be built", other.to_string()),
    }
}
