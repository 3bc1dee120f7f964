//! One entry of the registry.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, DataConfig, DataPaths, Manifest, Origin, Protocol, PublishedTable, RegistryError,
    canonical::{canonical, sha256},
    document::Document,
    overrides,
    reference::{Reference, resolve},
};
use crate::registry::TrainConfig;
use laps_model::models::config::ModelConfig;

/// A model with its data, its checkpoint and the recalls that are published for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The name; for a built-in entry also that of its file.
    pub name: String,
    /// The model.
    pub model: ModelConfig,
    /// The data.
    pub data: DataConfig,
    /// The recipe; the authors' where the file has none.
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
    rows: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    name: String,
    model: ModelConfig,
    data: DataConfig,
    train: Option<TrainConfig>,
    checkpoint: Option<String>,
    references: Option<BTreeMap<String, Reference>>,
}

/// What decides which numbers come out.
#[derive(Serialize)]
struct Effective<'a> {
    model: &'a ModelConfig,
    data: &'a DataConfig,
}

/// What decides which weights come out.
#[derive(Serialize)]
struct Run<'a> {
    model: &'a ModelConfig,
    data: &'a DataConfig,
    train: &'a TrainConfig,
}

#[derive(Serialize)]
struct RunFile<'a> {
    name: &'a str,
    #[serde(flatten)]
    run: Run<'a>,
}

impl Entry {
    /// Reads the text of an entry file and checks everything in it.
    pub fn from_yaml(origin: Origin, text: &str) -> Result<Self, RegistryError> {
        let document = Document { origin: &origin, text };
        let EntryFile { name, model, data, train, checkpoint, references } = document.read()?;
        check_name(&document, &name)?;
        model.check().map_err(|error| document.refuse_config("model", error))?;
        data.check(&document)?;
        let train = train.unwrap_or_default();
        train.check().map_err(|error| document.refuse_config("train", error))?;
        if let Some(checkpoint) = &checkpoint {
            let known = Manifest::embedded()?.checkpoints;
            if !known.contains_key(checkpoint) {
                let known: Vec<_> = known.keys().map(String::as_str).collect();
                return Err(document.refuse_word(&["checkpoint"], &known, checkpoint));
            }
        }
        let references = references.unwrap_or_default();
        let published = resolve(&document, &references, &data.protocol)?;
        let rows = references.into_iter().filter_map(|(source, reference)| match reference {
            Reference::Row(row) => Some((source, row)),
            Reference::Tables(_) => None,
        });
        let rows = rows.collect();
        let config_sha256 = sha256(canonical(&Effective { model: &model, data: &data })?.as_bytes());
        let text_sha256 = sha256(text.as_bytes());
        Ok(Self { name, model, data, train, checkpoint, origin, text_sha256, config_sha256, published, rows })
    }

    /// The effective configuration: `model` and `data` with every default filled in, as JSON without white space and with
    /// sorted keys.
    ///
    /// Formatting, comments, the order of keys and left-out defaults do not change it. Neither do the name, the
    /// checkpoint's source and the references, which have no part in what is computed.
    pub fn canonical(&self) -> Result<String, RegistryError> {
        Ok(canonical(&Effective { model: &self.model, data: &self.data })?)
    }

    /// The entry with each of `settings`, as `train.batch_size=128`, in place of what its recipe says, in this order.
    ///
    /// # Errors
    /// As for a file: an unknown key is named with the one that is most like it, a value out of range with the range.
    pub fn with_settings(mut self, settings: &[impl AsRef<str>]) -> Result<Self, RegistryError> {
        self.train = overrides::apply(&self.train, settings)?;
        Ok(self)
    }

    /// The effective configuration of a training run: [`canonical`](Self::canonical) with `train`.
    pub fn run_canonical(&self) -> Result<String, RegistryError> {
        Ok(canonical(&self.run())?)
    }

    /// SHA-256 of [`run_canonical`](Self::run_canonical).
    pub fn run_sha256(&self) -> Result<String, RegistryError> {
        Ok(sha256(self.run_canonical()?.as_bytes()))
    }

    /// An entry file that repeats this training: `model`, `data` and `train` with every default filled in. Paths of the
    /// data are as they were given.
    pub fn run_file(&self) -> Result<String, RegistryError> {
        let file = RunFile { name: &self.name, run: self.run() };
        let text = serde_yaml::to_string(&file)
            .map_err(|source| RegistryError::Yaml { origin: self.origin.clone(), source })?;
        Ok(format!("# The effective configuration of a run; its sha256 is {}.\n{text}", self.run_sha256()?))
    }

    fn run(&self) -> Run<'_> {
        Run { model: &self.model, data: &self.data, train: &self.train }
    }

    /// The tables that are published for this entry under `protocol`; none for a protocol that is not its own.
    pub fn published(&self, protocol: Protocol) -> Vec<PublishedTable> {
        self.published.iter().filter(|table| table.protocol == protocol).cloned().collect()
    }

    /// The row of `references.yaml` in `source` that the entry refers to: `vit_224` of `paper`.
    pub fn reference_row(&self, source: &str) -> Option<&str> {
        self.rows.get(source).map(String::as_str)
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
            (None, Origin::BuiltIn(_) | Origin::Setting(_)) => {
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
