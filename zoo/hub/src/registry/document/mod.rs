//! YAML texts whose errors name the key and the line.
//!
//! `serde_path_to_error` gives the path of a value that a type refuses. `yaml_serde` reports lines only in errors of its
//! parser, so `walk.rs` finds the line of a path by parsing the text again.

mod walk;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use serde_yaml::Value;

use super::error::{Origin, RegistryError, SourceLocation, did_you_mean, list, nearest};
use walk::Step;

/// A text and its origin.
pub(super) struct Document<'a> {
    pub(super) origin: &'a Origin,
    pub(super) text: &'a str,
}

/// Deserializes a tree; the error is where it fails, and the message of serde.
type DeserializeAt<T> = fn(&Value) -> Result<T, (Vec<Step>, String)>;

impl Document<'_> {
    /// Parses the whole text. An unknown, duplicate or missing key and a value of the wrong kind are errors at any depth.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, RegistryError> {
        self.read_value(self.parse(self.text)?)
    }

    /// Parses a YAML text that came with this one.
    pub(super) fn parse(&self, text: &str) -> Result<Value, RegistryError> {
        walk::parse(text).map_err(|source| RegistryError::Yaml { origin: self.origin.clone(), source })
    }

    /// As [`read`](Self::read), for a parsed text.
    pub(super) fn read_value<T: DeserializeOwned>(&self, root: Value) -> Result<T, RegistryError> {
        deserialize(&root).map_err(|(steps, message)| self.explain(&root, steps, &message, deserialize::<T>))
    }

    /// The error of a configuration's own check, whose key is relative to `section`.
    pub(super) fn refuse_config(&self, section: &str, error: laps_model::Error) -> RegistryError {
        match error {
            laps_model::Error::Config { key, expected, found, hint } => {
                let keys: Vec<_> = std::iter::once(section).chain(key.split('.')).collect();
                self.value_error(&steps(&keys), expected, format!("`{found}`"), hint.map(str::to_owned))
            }
            other => self.refuse(&[section], "a valid configuration", other.to_string()),
        }
    }

    /// An error about the value of the last of `keys`, each of them within the one before.
    pub(super) fn refuse(&self, keys: &[&str], expected: impl Into<String>, found: impl Into<String>) -> RegistryError {
        self.value_error(&steps(keys), expected.into(), found.into(), None)
    }

    /// As [`refuse`](Self::refuse), for a word that is not one of `known`.
    pub(super) fn refuse_word(&self, keys: &[&str], known: &[&str], found: &str) -> RegistryError {
        self.word_error(&steps(keys), known, found)
    }

    /// An error about the key `found` below `keys`, which is not one of `known`.
    pub(super) fn refuse_key(&self, keys: &[&str], known: &[&str], found: &str) -> RegistryError {
        let mut steps = steps(keys);
        steps.push(Step::Key(found.to_owned()));
        self.key_error(&steps, known, found)
    }

    fn key_error(&self, steps: &[Step], known: &[&str], found: &str) -> RegistryError {
        RegistryError::UnknownKey {
            location: self.location(steps),
            key: dotted(steps),
            known: known.iter().map(|&key| key.to_owned()).collect(),
            found: found.to_owned(),
            nearest: nearest(found, known.iter().copied()),
        }
    }

    fn value_error(&self, steps: &[Step], expected: String, found: String, hint: Option<String>) -> RegistryError {
        RegistryError::Value { location: self.location(steps), key: dotted(steps), expected, found, hint }
    }

    fn word_error(&self, steps: &[Step], known: &[&str], found: &str) -> RegistryError {
        let expected = if known.len() == 1 { list(known) } else { format!("one of {}", list(known)) };
        let hint = nearest(found, known.iter().copied()).map(|nearest| did_you_mean(&nearest));
        self.value_error(steps, expected, format!("`{found}`"), hint)
    }

    fn location(&self, steps: &[Step]) -> Box<SourceLocation> {
        let line = match self.origin {
            Origin::Setting(_) => None,
            Origin::BuiltIn(_) | Origin::File(_) => walk::line(self.text, steps),
        };
        Box::new(SourceLocation { origin: self.origin.clone(), line })
    }

    /// The error that `message`, in the words of serde, means at `steps` of `root`.
    fn explain<T>(
        &self,
        root: &Value,
        mut steps: Vec<Step>,
        message: &str,
        deserialize: DeserializeAt<T>,
    ) -> RegistryError {
        let at_steps = value_at(root, &steps);
        let quoted = |prefix: &str| message.strip_prefix(prefix)?.split_once('`').map(|(word, _)| word);
        if let Some(key) = quoted("missing field `") {
            let location = self.location(&steps);
            steps.push(Step::Key(key.to_owned()));
            return RegistryError::MissingKey { location, key: dotted(&steps) };
        }
        let (found, expected) = message.split_once(", expected ").unwrap_or((message, message));
        let words: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        if let Some(word) = quoted("unknown variant `")
            && at_steps.and_then(Value::as_str) == Some(word)
        {
            return self.word_error(&steps, &words, word);
        }
        // An unknown variant that is not a value is the key of a mapping.
        if let Some(key) = quoted("unknown field `").or_else(|| quoted("unknown variant `")) {
            let last = Step::Key(key.to_owned());
            if steps.last() != Some(&last) {
                steps.push(last);
            }
            return self.key_error(&steps, &words, key);
        }
        if expected == "a Value::Tagged enum"
            && let Some(value) = at_steps
        {
            // As a text it gives the error that lists the known words.
            let mut root = root.clone();
            let text = describe(value).trim_matches('`').to_owned();
            if let Some(value) = value_at_mut(&mut root, &steps) {
                *value = Value::String(text);
            }
            if let Err((again, message)) = deserialize(&root)
                && again == steps
                && message.starts_with("unknown variant")
            {
                return self.explain(&root, steps, &message, deserialize);
            }
        }
        let found = match found.strip_prefix("invalid length ") {
            Some(length) if expected.starts_with("an array") || expected.starts_with("fewer") => {
                format!("a list of {length}")
            }
            _ => at_steps.map_or_else(String::new, describe),
        };
        self.value_error(&steps, in_words_of_yaml(expected), found, None)
    }
}

fn deserialize<T: DeserializeOwned>(root: &Value) -> Result<T, (Vec<Step>, String)> {
    serde_path_to_error::deserialize(root).map_err(|error| {
        let step = |segment: &Segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        (error.path().iter().filter_map(step).collect(), error.inner().to_string())
    })
}

fn steps(keys: &[&str]) -> Vec<Step> {
    keys.iter().map(|&key| Step::Key(key.to_owned())).collect()
}

fn value_at<'a>(root: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    steps.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

fn value_at_mut<'a>(root: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

/// serde's expected type, in the words of YAML.
fn in_words_of_yaml(expected: &str) -> String {
    match expected {
        "usize" | "u64" | "u32" => "a whole number, not negative".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "a string" | "path string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "fewer elements in sequence" => "a shorter list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.replace("an array of length", "a list of"),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => format!("`{number}`"),
            None => format!("`{number}`"),
        },
        Value::String(text) => format!("the text `{text}`"),
        Value::Sequence(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Sequence(items) => format!("a list of {}", items.iter().map(describe).collect::<Vec<_>>().join(", ")),
        Value::Mapping(_) | Value::Tagged(_) => "a mapping".to_owned(),
    }
}

/// `model.image.depths[1]`; the root is `(top level)`.
fn dotted(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key.as_str()]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    if text.is_empty() { "(top level)".to_owned() } else { text }
}
