//! An entry of the registry.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    CheckpointSource, DataConfig, DataPaths, Manifest, Origin, Protocol, PublishedTable, RegistryError,
    canonical::{canonical, sha256},
    document::Document,
    overrides,
    reference::{Reference, resolve},
};
use crate::registry::TrainConfig;
use laps_data::{DataError, Tokenizer, Vocabulary, sources::SourceKind};
use laps_files::strip_mark;
use laps_model::models::config::ModelConfig;

/// A model with its data, its training recipe, its checkpoint and its published recalls.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The name; a built-in entry has the name of its file.
    pub name: String,
    /// The model.
    pub model: ModelConfig,
    /// The data.
    pub data: DataConfig,
    /// The training recipe; by default the authors'.
    pub train: TrainConfig,
    /// The published checkpoint, if there is one: a key of [`Manifest::checkpoints`].
    pub checkpoint: Option<String>,
    /// Choices of the entry that the source of the model does not state.
    pub choices: Vec<String>,
    /// Origin of the entry.
    pub origin: Origin,
    /// SHA-256 of the entry file.
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
    #[serde(default)]
    choices: Vec<String>,
}

/// Everything that determines the results of an evaluation.
#[derive(Serialize)]
struct Effective<'a> {
    model: &'a ModelConfig,
    data: &'a DataConfig,
}

/// Everything that determines the weights of a training run.
#[derive(Serialize)]
struct TrainingRun<'a> {
    model: &'a ModelConfig,
    data: &'a DataConfig,
    train: &'a TrainConfig,
}

#[derive(Serialize)]
struct RunFile<'a> {
    name: &'a str,
    #[serde(flatten)]
    run: TrainingRun<'a>,
}

impl Entry {
    /// Parses and checks the text of an entry file.
    pub fn from_yaml(origin: Origin, text: &str) -> Result<Self, RegistryError> {
        let document = Document { origin: &origin, text: strip_mark(text) };
        let EntryFile { name, model, data, train, checkpoint, references, choices } = document.read()?;
        check_name(&document, &name)?;
        model.check().map_err(|error| document.refuse_config("model", error))?;
        data.check(&document)?;
        if let Some(batch) = data.padded_batch
            && !model.head.reads_padding()
        {
            let expected = format!("no value: the head `{}` does not read padding", model.head.kind());
            return Err(document.refuse(&["data", "padded_batch"], expected, format!("`{batch}`")));
        }
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
        Ok(Self { name, model, data, train, checkpoint, choices, origin, text_sha256, config_sha256, published, rows })
    }

    /// The effective configuration: `model` and `data` with all defaults, as JSON without white space and with sorted keys.
    ///
    /// Formatting, comments, the order of keys and omitted defaults do not change it. Neither do the name, the checkpoint
    /// and the references, which do not affect results.
    pub fn canonical(&self) -> Result<String, RegistryError> {
        Ok(canonical(&Effective { model: &self.model, data: &self.data })?)
    }

    /// The entry with `settings` such as `train.batch_size=128` applied to its recipe in order.
    ///
    /// # Errors
    /// As for a file: an unknown key is reported with the most similar one, a value out of range with the range.
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

    /// An entry file that repeats this training: `model`, `data` and `train` with all defaults. The data paths stay as in the
    /// entry.
    pub fn run_file(&self) -> Result<String, RegistryError> {
        let file = RunFile { name: &self.name, run: self.run() };
        let text = serde_yaml::to_string(&file)
            .map_err(|source| RegistryError::Yaml { origin: self.origin.clone(), source })?;
        Ok(format!("# The effective configuration of a run; its sha256 is {}.\n{text}", self.run_sha256()?))
    }

    fn run(&self) -> TrainingRun<'_> {
        TrainingRun { model: &self.model, data: &self.data, train: &self.train }
    }

    /// The published tables of this entry under `protocol`; empty for a protocol that is not its own.
    pub fn published(&self, protocol: Protocol) -> Vec<PublishedTable> {
        self.published.iter().filter(|table| table.protocol == protocol).cloned().collect()
    }

    /// The row of `references.yaml` in `source` that the entry refers to: `vit_224` of `paper`.
    pub fn reference_row(&self, source: &str) -> Option<&str> {
        self.rows.get(source).map(String::as_str)
    }

    /// The source of the published checkpoint, if there is one.
    pub fn checkpoint_source(&self) -> Result<Option<CheckpointSource>, RegistryError> {
        let Some(name) = &self.checkpoint else { return Ok(None) };
        Ok(Manifest::embedded()?.checkpoints.remove(name))
    }

    /// The data paths below `root`, or below the folder of the entry file without one.
    pub fn data_paths(&self, root: Option<&Path>) -> Result<DataPaths, RegistryError> {
        Ok(self.data.below(self.data_root(root)?))
    }

    /// The entry with another layout of its data, whose files have their usual names.
    pub fn with_source(mut self, source: SourceKind) -> Result<Self, RegistryError> {
        if source == self.data.source {
            return Ok(self);
        }
        let set = self.data.captions.iter().next().unwrap_or("f30k".as_ref()).to_string_lossy().into_owned();
        let (captions, images, file) = match source {
            SourceKind::Laps => ("captions", "images", Vec::new()),
            SourceKind::Authors => ("", "", vec![format!("data/{set}")]),
            _ => ("", "", Vec::new()),
        };
        let [captions, images] = [captions, images].map(PathBuf::from);
        let splits = None;
        self.data = DataConfig { captions, images, file, splits, max_captions: None, ..self.data };
        self.data.source = source;
        self.config_sha256 = sha256(self.canonical()?.as_bytes());
        Ok(self)
    }

    /// The entry with other evaluation protocols.
    ///
    /// # Errors
    /// A configuration that cannot be serialised, which is not known to happen.
    pub fn with_protocol(mut self, protocol: Vec<Protocol>) -> Result<Self, RegistryError> {
        self.data.protocol = protocol;
        self.config_sha256 = sha256(self.canonical()?.as_bytes());
        Ok(self)
    }

    /// The entry with captions that are encoded without padding: see [`DataConfig::padded_batch`].
    ///
    /// # Errors
    /// A configuration that cannot be serialised, which is not known to happen.
    pub fn without_padding(mut self) -> Result<Self, RegistryError> {
        if self.data.padded_batch.take().is_some() {
            self.config_sha256 = sha256(self.canonical()?.as_bytes());
        }
        Ok(self)
    }

    /// The folder that data paths are relative to: `root`, or the folder of the entry file without one.
    pub fn data_root<'a>(&'a self, root: Option<&'a Path>) -> Result<&'a Path, RegistryError> {
        Ok(match (root, &self.origin) {
            (Some(root), _) => root,
            (None, Origin::File(path)) => path.parent().unwrap_or(Path::new("")),
            (None, Origin::BuiltIn(_) | Origin::Setting(_)) => {
                let DataPaths { captions, images, vocab } = self.data.below(Path::new(""));
                return Err(RegistryError::NoDataRoot {
                    entry: self.name.clone(),
                    contents: [captions, images, vocab],
                });
            }
        })
    }

    /// The data paths as [`data_paths`](Self::data_paths), which have to exist.
    ///
    /// # Errors
    /// [`RegistryError::DataTree`] with the tree that is expected and what is there.
    pub fn existing_data_paths(&self, root: Option<&Path>) -> Result<DataPaths, RegistryError> {
        let paths = self.existing_data_folders(root)?;
        if paths.vocab.is_file() { Ok(paths) } else { Err(self.data_tree(root, &paths.vocab)?) }
    }

    /// As [`existing_data_paths`](Self::existing_data_paths), but the vocabulary can be missing.
    ///
    /// # Errors
    /// [`RegistryError::DataTree`].
    pub fn existing_data_folders(&self, root: Option<&Path>) -> Result<DataPaths, RegistryError> {
        let paths = self.data_paths(root)?;
        let missing = [&paths.captions, &paths.images].into_iter().find(|path| !path.is_dir());
        match missing {
            Some(missing) => Err(self.data_tree(root, missing)?),
            None => Ok(paths),
        }
    }

    /// The error of the data folder `root`, in which `missing` is missing.
    fn data_tree(&self, root: Option<&Path>, missing: &Path) -> Result<RegistryError, RegistryError> {
        let own = self.data.below(Path::new(""));
        let vocab = own.vocab.clone();
        let mut trees = vec![own];
        if let [Some(captions), Some(images)] = self.data.authors_tree() {
            trees.push(DataPaths { captions, images, vocab });
        }
        let root = self.data_root(root)?;
        // The folder of an entry file in the current folder is empty.
        let is_folder = |folder: &&Path| folder.as_os_str().is_empty() || folder.is_dir();
        let inside = missing.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
        Ok(RegistryError::DataTree {
            entry: self.name.clone(),
            missing: missing.to_owned(),
            trees,
            existing: inside.into_iter().find(is_folder).map(Path::to_owned),
            root: root.to_owned(),
        })
    }

    /// The tokenizer of the model, with the vocabulary at `paths`.
    ///
    /// # Errors
    /// A vocabulary that cannot be used or that has another size than the model.
    pub fn tokenizer(&self, paths: &DataPaths) -> Result<Tokenizer, DataError> {
        let vocabulary = Vocabulary::read(&paths.vocab)?.with_lower_case(self.data.do_lower_case);
        let tokenizer = Tokenizer::new(&vocabulary)?;
        tokenizer.check_fits(self.model.text.vocab_size)?;
        Ok(tokenizer)
    }
}

/// Reports and checkpoints are named after the entry.
fn check_name(document: &Document<'_>, name: &str) -> Result<(), RegistryError> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.chars().all(plain) {
        return Ok(());
    }
    let expected = "ASCII letters, digits, `_`, `-` and `.`, starting with a letter or digit";
    Err(document.refuse(&["name"], expected, format!("`{name}`")))
}
