//! What is wrong with a tree, and where in it.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::node::Node;

/// A step from a mapping or list to something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The value of this key.
    Key(String),
    /// This entry of a list, counted from 0.
    Index(usize),
}

/// The first thing that is wrong with a tree.
#[derive(Debug)]
pub(super) struct Fault {
    /// From the innermost step out to the root.
    pub(super) steps: Vec<Step>,
    pub(super) problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    /// The mapping has a key that means nothing.
    UnknownKey { key: String, known: &'static [&'static str] },
    /// The mapping lacks a key.
    MissingKey { key: &'static str },
    /// The value is no good.
    Value { expected: String, found: String },
    /// The value is a word, and none of those that are allowed.
    Word { found: String, known: &'static [&'static str] },
    /// The value is no good, in the words of the type that refused it.
    Refused { expected: String },
}

impl Fault {
    /// This fault, seen from one step further out.
    pub(super) fn under(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// `found` is not what was `expected`.
    pub(super) fn value(expected: impl Into<String>, found: &Node) -> Self {
        Self::new(Problem::Value { expected: expected.into(), found: found.to_string() })
    }

    fn new(problem: Problem) -> Self {
        Self { steps: Vec::new(), problem }
    }
}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Problem::Refused { expected: message.to_string() })
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Problem::Value { expected: wanted(expected), found: given(found) })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(Problem::Value { expected: wanted(expected), found: format!("a list of {length}") })
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::Word { found: found.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Problem::MissingKey { key })
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What serde expects, in the words of YAML.
fn wanted(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "usize" | "u64" | "u32" => "a whole number, not negative".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "a string" | "path string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.replace("an array of length", "a list of"),
    }
}

fn given(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => format!("the text `{text}`"),
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("`{number}`"),
        Unexpected::Signed(number) => format!("`{number}`"),
        Unexpected::Float(number) => format!("`{number}`"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}
