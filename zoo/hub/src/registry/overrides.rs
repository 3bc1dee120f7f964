//! Single values of the recipe that are given beside the entry file.

use serde::{Deserialize, Serialize};

use super::{
    Origin, RegistryError,
    canonical::canonical,
    document::{Document, Node},
};
use crate::registry::TrainConfig;

/// What `KEY=VALUE` may change. The model and the data belong to the file: published numbers are held against them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overridable {
    pub(super) train: TrainConfig,
}

/// `train` with each of `settings`, as `train.batch_size=128`, applied in order. The value is YAML, as in a file.
pub(super) fn apply(train: &TrainConfig, settings: &[impl AsRef<str>]) -> Result<TrainConfig, RegistryError> {
    let mut current = Overridable { train: train.clone() };
    for setting in settings {
        let setting = setting.as_ref();
        let origin = Origin::Setting(setting.to_owned());
        // JSON is YAML.
        let text = canonical(&current)?;
        let document = Document { origin: &origin, text: "" };
        let Some((key, value)) = setting.split_once('=') else {
            return Err(document.refuse(&["KEY=VALUE"], "`=` between a key and its value", format!("`{setting}`")));
        };
        let keys: Vec<&str> = key.trim().split('.').collect();
        if keys == ["train"] {
            return Err(document.refuse(&keys, "a key within it, as `train.epochs`", format!("`{setting}`")));
        }
        let value = document.node(value)?;
        let mut root: Node = document.node(&text)?;
        root.set(&keys, value);
        current = document.read_node(&root)?;
        current.train.check().map_err(|error| document.refuse_config("train", error))?;
    }
    Ok(current.train)
}
