//! YAML texts whose errors say which key and line they are about.

mod fault;
mod locate;
mod node;
mod reader;

use serde::de::DeserializeOwned;

use super::error::{Origin, Place, RegistryError, list, nearest};
pub(super) use fault::Step;
use fault::{Fault, Problem};
use laps_model::Error;
pub(super) use node::Node;
use reader::Reader;

/// A text and where it comes from.
pub(super) struct Document<'a> {
    pub(super) origin: &'a Origin,
    pub(super) text: &'a str,
}

impl Document<'_> {
    /// Reads the whole text. An unknown, repeated or missing key and a value of the wrong kind are errors at any depth.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, RegistryError> {
        self.read_node(&self.node(self.text)?)
    }

    /// The tree of a YAML text that came with this one.
    pub(super) fn node(&self, text: &str) -> Result<Node, RegistryError> {
        serde_yaml::from_str(text).map_err(|source| RegistryError::Yaml { origin: self.origin.clone(), source })
    }

    /// The same as [`read`](Self::read) for a tree.
    pub(super) fn read_node<T: DeserializeOwned>(&self, root: &Node) -> Result<T, RegistryError> {
        T::deserialize(Reader(root)).map_err(|fault| self.report(root, fault))
    }

    /// The error of a configuration's own check, whose keys are those below `section`.
    pub(super) fn refuse_config(&self, section: &str, error: Error) -> RegistryError {
        match error {
            Error::Config { key, expected, found } => {
                let keys: Vec<_> = std::iter::once(section).chain(key.split('.')).collect();
                self.refuse(&keys, expected, format!("`{found}`"))
            }
            other => self.refuse(&[section], "a configuration that can be used", other.to_string()),
        }
    }

    /// An error about the value of the last of `keys`, each of them within the one before.
    pub(super) fn refuse(&self, keys: &[&str], expected: impl Into<String>, found: impl Into<String>) -> RegistryError {
        let steps: Vec<_> = keys.iter().map(|&key| Step::Key(key.to_owned())).collect();
        self.value(&steps, expected.into(), found.into(), None)
    }

    /// The same for a word that is none of those that are known.
    pub(super) fn refuse_word(&self, keys: &[&str], known: &[&str], found: &str) -> RegistryError {
        let steps: Vec<_> = keys.iter().map(|&key| Step::Key(key.to_owned())).collect();
        self.word(&steps, known, found)
    }

    /// An error about the key `found` below `keys`, which is none of those that are known.
    pub(super) fn refuse_key(&self, keys: &[&str], known: &[&'static str], found: &str) -> RegistryError {
        let steps = keys.iter().map(|&key| Step::Key(key.to_owned())).collect();
        self.key(steps, known, found.to_owned())
    }

    fn key(&self, mut steps: Vec<Step>, known: &[&'static str], found: String) -> RegistryError {
        steps.push(Step::Key(found.clone()));
        let nearest = nearest(&found, known.iter().copied());
        RegistryError::UnknownKey {
            place: self.place(&steps),
            key: dotted(&steps),
            known: known.to_vec(),
            found,
            nearest,
        }
    }

    fn value(&self, steps: &[Step], expected: String, found: String, nearest: Option<String>) -> RegistryError {
        RegistryError::Value { place: self.place(steps), key: dotted(steps), expected, found, nearest }
    }

    fn word(&self, steps: &[Step], known: &[&str], found: &str) -> RegistryError {
        let expected = if known.len() == 1 { list(known) } else { format!("one of {}", list(known)) };
        self.value(steps, expected, format!("`{found}`"), nearest(found, known.iter().copied()))
    }

    fn place(&self, steps: &[Step]) -> Box<Place> {
        let line = match self.origin {
            Origin::Setting(_) => None,
            Origin::BuiltIn(_) | Origin::File(_) => locate::line(self.text, steps),
        };
        Box::new(Place { origin: self.origin.clone(), line })
    }

    fn report(&self, root: &Node, Fault { mut steps, problem }: Fault) -> RegistryError {
        steps.reverse();
        match problem {
            Problem::UnknownKey { key, known } => self.key(steps, known, key),
            Problem::MissingKey { key } => {
                let place = self.place(&steps);
                steps.push(Step::Key(key.to_owned()));
                RegistryError::MissingKey { place, key: dotted(&steps) }
            }
            Problem::Value { expected, found } => self.value(&steps, expected, found, None),
            Problem::Word { found, known } => self.word(&steps, known, &found),
            Problem::Refused { expected } => {
                let found = node_at(root, &steps).map_or_else(String::new, Node::to_string);
                self.value(&steps, expected, found, None)
            }
        }
    }
}

fn node_at<'a>(root: &'a Node, steps: &[Step]) -> Option<&'a Node> {
    steps.iter().try_fold(root, |node, step| match (node, step) {
        (Node::Mapping(nodes), Step::Key(key)) => nodes.iter().find(|(name, _)| name == key).map(|(_, node)| node),
        (Node::List(nodes), Step::Index(index)) => nodes.get(*index),
        _ => None,
    })
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
