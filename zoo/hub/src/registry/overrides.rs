//! Settings that replace single values of the training recipe.

use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

use super::{Origin, RegistryError, canonical::canonical, document::Document};
use crate::registry::TrainConfig;

/// The sections that a setting can change. The model and the data stay as in the file, because published numbers belong to
/// them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overridable {
    pub(super) train: TrainConfig,
}

/// `train` with `settings` such as `train.batch_size=128` applied in order. A value is YAML, as in a file.
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
            return Err(document.refuse(
                &keys,
                "a key of this section, such as `train.epochs`",
                format!("`{setting}`"),
            ));
        }
        let value = document.parse(value)?;
        let mut root = document.parse(&text)?;
        set(&mut root, &keys, value);
        current = document.read_value(root)?;
        current.train.check().map_err(|error| document.refuse_config("train", error))?;
    }
    Ok(current.train)
}

/// Sets the value at the end of `keys`; values on the way that are not mappings are replaced by mappings.
fn set(root: &mut Value, keys: &[&str], value: Value) {
    let Some((first, rest)) = keys.split_first() else {
        *root = value;
        return;
    };
    if !root.is_mapping() {
        *root = Value::Mapping(Mapping::new());
    }
    if let Value::Mapping(mapping) = root {
        set(mapping.entry((*first).into()).or_insert(Value::Null), rest, value);
    }
}
