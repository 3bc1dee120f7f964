//! What can go wrong here.

use std::{fmt, path::PathBuf};

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Neither the name of a built-in entry nor the path of a file.
    #[error(
        "there is no entry `{name}`\n  expected: the path of a YAML file, or one of {}\n  found: `{name}`",
        list(&super::names())
    )]
    UnknownEntry {
        /// As the user named it.
        name: String,
        /// The built-in name that is most like it.
        nearest: Option<String>,
    },
    /// An entry file could not be read.
    #[error("can not read the entry file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The built-in entry of that name.
        name: Option<&'static str>,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The text is not YAML, or has the same key twice.
    #[error("{origin} is not the YAML of an entry")]
    Yaml {
        /// Which text.
        origin: Origin,
        /// What the parser says, with line and column.
        #[source]
        source: serde_yaml::Error,
    },
    /// A key that means nothing.
    #[error("{place}: there is no key `{key}`\n  expected: {}\n  found: `{found}`", list(known))]
    UnknownKey {
        /// Where it stands.
        place: Box<Place>,
        /// The key with those above it, `model.image.patch`.
        key: String,
        /// The keys that there are in this place.
        known: Vec<&'static str>,
        /// The last part of `key`.
        found: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A key that is needed and is not there.
    #[error("{place}: the key `{key}` is missing")]
    MissingKey {
        /// Where the mapping begins that should have it.
        place: Box<Place>,
        /// The key with those above it.
        key: String,
    },
    /// A value of the wrong kind or outside its range.
    #[error("{place}: the value of `{key}` can not be used\n  expected: {expected}\n  found: {found}")]
    Value {
        /// Where it stands.
        place: Box<Place>,
        /// The key with those above it.
        key: String,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
        /// The allowed word that is most like it.
        nearest: Option<String>,
    },
    /// A built-in entry has no folder of its own that its data could lie beside.
    #[error("entry `{entry}` needs its data\n  expected: a folder given as --data\n  found: none")]
    NoDataRoot {
        /// Name of the entry.
        entry: String,
        /// What the folder has to hold.
        holds: [PathBuf; 3],
    },
    /// A configuration could not be written in its canonical form.
    #[error("the configuration has no canonical form")]
    Canonical(#[from] serde_json::Error),
}

impl RegistryError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownEntry { nearest, .. } | Self::UnknownKey { nearest, .. } | Self::Value { nearest, .. } => {
                nearest.as_ref().map(|nearest| format!("did you mean `{nearest}`?"))
            }
            Self::Read { name, .. } => name.map(|name| format!("the built-in entry is `{name}`, without an ending")),
            Self::NoDataRoot { holds, .. } => {
                Some(format!("the folder has to hold {}", list(&holds.each_ref().map(|path| path.display()))))
            }
            Self::Yaml { .. } | Self::MissingKey { .. } | Self::Canonical(_) => None,
        }
    }
}

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Part of the binary, under this name.
    BuiltIn(&'static str),
    /// A file.
    File(PathBuf),
    /// `KEY=VALUE`, given beside the entry.
    Setting(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => write!(f, "`{name}` (built in)"),
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Setting(setting) => write!(f, "`--set {setting}`"),
        }
    }
}

/// A line of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The text.
    pub origin: Origin,
    /// Counted from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}", self.origin),
            None => write!(f, "{}", self.origin),
        }
    }
}

/// `` `a`, `b`, `c` ``.
pub(super) fn list(words: &[impl fmt::Display]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The candidate that is most like `word`, where any is like it at all.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (likeness(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.65)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.len().cmp(&a.1.len())))
        .map(|(_, candidate)| candidate.to_owned())
}

/// From 0 to 1: by letters, whatever the order of the parts (`swin_coco`), or 0.7 for a part left out (`heads`).
fn likeness(word: &str, candidate: &str) -> f64 {
    let sorted = |word: &str| {
        let mut parts: Vec<_> = word.split('_').collect();
        parts.sort_unstable();
        parts.join("_")
    };
    let letters = strsim::normalized_damerau_levenshtein(word, candidate);
    let parts = strsim::normalized_damerau_levenshtein(&sorted(word), &sorted(candidate));
    let part = if word.len() > 2 && candidate.contains(word) { 0.7 } else { 0.0 };
    letters.max(parts).max(part)
}
