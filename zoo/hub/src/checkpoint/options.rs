//! The options that a checkpoint was trained with: `opt`, an `argparse.Namespace` or its JSON.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::pickle::{Id, Pickle, Value};
use laps_model::{heads::HeadConfig, models::config::ModelConfig};

/// Deepest nesting of an option. The options of LAPS have one list of numbers.
const MAX_DEPTH: usize = 16;

/// Most values of all options together. A pickle can share lists so that expanding them never ends.
const MAX_VALUES: usize = 10_000;

/// Options by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Options {
    values: BTreeMap<String, OptionValue>,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// Python's `None`.
    None,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list or a tuple.
    List(Vec<OptionValue>),
    /// Named values.
    Map(BTreeMap<String, OptionValue>),
    /// A value that is not plain data: the name of its Python type.
    Other(&'static str),
}

/// An option of the checkpoint that differs from the entry.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionDifference {
    /// Name of the option.
    pub key: &'static str,
    /// Value in the entry.
    pub expected: String,
    /// Value in the checkpoint.
    pub found: String,
}

impl Options {
    /// The value of the option `key`.
    pub fn get(&self, key: &str) -> Option<&OptionValue> {
        self.values.get(key)
    }

    /// All options, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OptionValue)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Compares the options that affect results with `model`. An option that is absent or `None` is not a difference; a text
    /// that is a number, as `argparse` leaves it without a type, is compared as that number. The image size in the options of
    /// D2S-VSE's authors is not compared: their code runs `img_res` 224 at 384 pixels.
    ///
    /// # Errors
    /// [`super::CheckpointError::Options`] with every option that differs and both of its values.
    pub fn check(&self, model: &ModelConfig) -> Result<(), super::CheckpointError> {
        let expected = [
            ("vit_type", OptionValue::Text(model.image.kind().to_owned())),
            ("img_res", count(model.image.image_size())),
            ("num_patches", count(model.image.num_patches())),
            ("embed_size", count(model.embed_size)),
            ("head", OptionValue::Text(model.head.to_string())),
        ];
        let ratios = [
            ("sparse_ratio", OptionValue::Float(model.sparse_ratio)),
            ("aggr_ratio", OptionValue::Float(model.aggr_ratio)),
        ];
        let ratios = ratios.into_iter().filter(|_| model.head.has_ratios());
        // Options of this program have the head.
        let is_d2s = matches!(model.head, HeadConfig::D2sVse(_)) && self.get("head").is_none();
        let expected = expected.into_iter().filter(|(key, _)| !is_d2s || !["img_res", "num_patches"].contains(key));
        let differs = |(key, expected): (&'static str, OptionValue)| {
            let found = self.get(key).filter(|found| **found != OptionValue::None)?;
            let difference = || OptionDifference { key, expected: expected.to_string(), found: found.to_string() };
            (!expected.equals(found)).then(difference)
        };
        let differences: Vec<_> = expected.chain(ratios).filter_map(differs).collect();
        if differences.is_empty() { Ok(()) } else { Err(super::CheckpointError::Options(differences)) }
    }

    /// The options at `id`; none where it is neither a namespace nor a dictionary.
    ///
    /// # Errors
    /// Options that are too many or nested too deeply, in words.
    pub(super) fn from_pickle(pickle: &Pickle, id: Id) -> Result<Option<Self>, String> {
        let value = (Unpickler { pickle, left: MAX_VALUES }).value(id, MAX_DEPTH);
        match value.ok_or_else(|| format!("an `opt` of more than {MAX_VALUES} values or {MAX_DEPTH} levels"))? {
            OptionValue::Map(values) => Ok(Some(Self { values })),
            _ => Ok(None),
        }
    }

    /// The options in a JSON object; none where `text` is something else.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        match serde_json::from_str::<serde_json::Value>(text).ok()?.into() {
            OptionValue::Map(values) => Some(Self { values }),
            _ => None,
        }
    }
}

impl OptionValue {
    /// The value of an integer or a float.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of an integer, a float, or a text that is a number.
    fn parsed_number(&self) -> Option<f64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            other => other.number(),
        }
    }

    /// Whether an option of the checkpoint, `found`, has this value; `1`, `1.0` and the text `1` are equal.
    fn equals(&self, found: &Self) -> bool {
        match (self.number(), found.parsed_number()) {
            (Some(expected), Some(found)) => expected == found,
            _ => self == found,
        }
    }
}

fn count(value: usize) -> OptionValue {
    OptionValue::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

struct Unpickler<'a> {
    pickle: &'a Pickle,
    left: usize,
}

impl Unpickler<'_> {
    /// None where there are too many values or levels.
    fn value(&mut self, id: Id, depth: usize) -> Option<OptionValue> {
        self.left = self.left.checked_sub(1)?;
        let inner = depth.checked_sub(1)?;
        if let Some(pairs) = self.pickle.pairs(id) {
            let mut values = BTreeMap::new();
            for &(key, value) in pairs {
                let key = match self.pickle.value(key) {
                    Value::Text(key) => key.clone(),
                    Value::Int(key) => key.to_string(),
                    Value::Float(key) => key.to_string(),
                    other => other.type_name().to_owned(),
                };
                values.insert(key, self.value(value, inner)?);
            }
            return Some(OptionValue::Map(values));
        }
        Some(match self.pickle.value(id) {
            Value::None => OptionValue::None,
            Value::Bool(value) => OptionValue::Bool(*value),
            Value::Float(value) => OptionValue::Float(*value),
            Value::Text(text) => OptionValue::Text(text.clone()),
            Value::Int(value) => i64::try_from(*value).map_or(OptionValue::Other("int"), OptionValue::Int),
            Value::List(items) | Value::Tuple(items) => {
                OptionValue::List(items.iter().map(|&item| self.value(item, inner)).collect::<Option<_>>()?)
            }
            other => OptionValue::Other(other.type_name()),
        })
    }
}

impl From<serde_json::Value> for OptionValue {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::None,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Float(value),
                (None, None) => Self::Other("int"),
            },
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(items) => Self::Map(items.into_iter().map(|(key, item)| (key, item.into())).collect()),
        }
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
            Self::List(items) => f.debug_list().entries(items.iter().map(ToString::to_string)).finish(),
            Self::Map(_) => f.write_str("a dictionary"),
            Self::Other(name) => write!(f, "a {name}"),
        }
    }
}

impl fmt::Display for OptionDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`\n    expected: {}\n    found: {}", self.key, self.expected, self.found)
    }
}
