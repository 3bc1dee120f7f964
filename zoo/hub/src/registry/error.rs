//! The error type of the registry.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::DataPaths;

/// An entry, a manifest or a setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name is neither a built-in entry nor the path of a file.
    #[error(
        "there is no entry `{name}`\n  expected: the path of a YAML file, or the name of a built-in entry\n  \
         found: `{name}`"
    )]
    UnknownEntry {
        /// As the user named it.
        name: String,
        /// The most similar built-in name.
        nearest: Option<String>,
    },
    /// An entry file cannot be read.
    #[error("cannot read the entry file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The built-in entry of that name.
        name: Option<&'static str>,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The text is not YAML, or has a duplicate key.
    #[error("{origin} is not valid YAML")]
    Yaml {
        /// The text.
        origin: Origin,
        /// The parser's error, with line and column.
        #[source]
        source: serde_yaml::Error,
    },
    /// A key is unknown.
    #[error("{location}: there is no key `{key}`\n  expected: {}\n  found: `{found}`", list(known))]
    UnknownKey {
        /// Location of the key.
        location: Box<SourceLocation>,
        /// Path of the key, `model.image.patch`.
        key: String,
        /// The known keys there.
        known: Vec<String>,
        /// The last part of `key`.
        found: String,
        /// The most similar known key.
        nearest: Option<String>,
    },
    /// A required key is missing.
    #[error("{location}: the key `{key}` is missing")]
    MissingKey {
        /// Location of the mapping that lacks it.
        location: Box<SourceLocation>,
        /// Path of the key.
        key: String,
    },
    /// A value is of the wrong kind or out of range.
    #[error("{location}: the value of `{key}` cannot be used\n  expected: {expected}\n  found: {found}")]
    Value {
        /// Location of the key.
        location: Box<SourceLocation>,
        /// Path of the key.
        key: String,
        /// The allowed values.
        expected: String,
        /// The value.
        found: String,
        /// Suggested fix, where one is known.
        hint: Option<String>,
    },
    /// The data of a built-in entry have no default folder.
    #[error("entry `{entry}` needs its data\n  expected: a data folder\n  found: none")]
    NoDataRoot {
        /// Name of the entry.
        entry: String,
        /// Files and folders that the data folder has to contain.
        contents: [PathBuf; 3],
    },
    /// A folder or the vocabulary of the data of an entry does not exist.
    #[error(
        "the data of entry `{entry}` are incomplete: there is no {} `{}`\n  expected: {}\n  found: {}",
        if trees.iter().any(|tree| missing.ends_with(&tree.vocab)) { "vocabulary" } else { "folder" },
        missing.display(), describe_trees(trees), describe_folder(existing.as_deref(), root)
    )]
    DataTree {
        /// Name of the entry.
        entry: String,
        /// The first folder or file that is missing.
        missing: PathBuf,
        /// Paths that would do, relative to the data folder. They differ in the folders.
        trees: Vec<DataPaths>,
        /// The nearest folder above the missing one in the data folder.
        existing: Option<PathBuf>,
        /// The data folder.
        root: PathBuf,
    },
    /// A configuration cannot be written as canonical JSON.
    #[error("the configuration has no canonical JSON form")]
    Canonical(#[from] serde_json::Error),
}

impl RegistryError {
    /// Suggested fix, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownEntry { nearest: None, .. } => Some("`laps-zoo list` shows the built-in entries".to_owned()),
            Self::UnknownEntry { nearest, .. } | Self::UnknownKey { nearest, .. } => {
                nearest.as_deref().map(did_you_mean)
            }
            Self::Value { hint, .. } => hint.clone(),
            Self::Read { name, .. } => name.map(|name| format!("the built-in entry is `{name}`, without a suffix")),
            Self::NoDataRoot { contents, .. } => {
                Some(format!("the folder has to contain {}", list(&contents.each_ref().map(|path| path.display()))))
            }
            Self::DataTree { .. } => {
                Some("a caption folder holds `<split>_ids.txt`, `<split>_caps.txt` and `id_mapping.json`".to_owned())
            }
            Self::Yaml { .. } | Self::MissingKey { .. } | Self::Canonical(_) => None,
        }
    }
}

fn describe_trees(trees: &[DataPaths]) -> String {
    let folders = |DataPaths { captions, images, .. }: &DataPaths| {
        format!("captions in `{}` and images in `{}`", captions.display(), images.display())
    };
    let vocabulary =
        trees.first().map_or_else(String::new, |tree| format!("; and the vocabulary `{}`", tree.vocab.display()));
    trees.iter().map(folders).collect::<Vec<_>>().join(", or ") + &vocabulary
}

/// Text for a message: the first names in `folder`, or "no folder" with `root` if it is None.
pub fn describe_folder(folder: Option<&Path>, root: &Path) -> String {
    const LISTED: usize = 8;
    let Some(folder) = folder else { return format!("no folder `{}`", root.display()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let rest = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let names = if names.is_empty() { "nothing".to_owned() } else { list(&names) };
    let rest = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    format!("{names}{rest} in `{}`", folder.display())
}

/// Origin of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built into the program under this name.
    BuiltIn(&'static str),
    /// A file.
    File(PathBuf),
    /// A setting `KEY=VALUE` on top of the entry.
    Setting(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => write!(f, "`{name}` (built in)"),
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Setting(setting) => write!(f, "setting `{setting}`"),
        }
    }
}

/// A line of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// The text.
    pub origin: Origin,
    /// Counted from 1.
    pub line: Option<usize>,
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}", self.origin),
            None => write!(f, "{}", self.origin),
        }
    }
}

/// The hint that names the most similar known word.
pub(super) fn did_you_mean(nearest: &str) -> String {
    format!("did you mean `{nearest}`?")
}

/// `` `a`, `b`, `c` ``.
pub(super) fn list(words: &[impl fmt::Display]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The candidate that is most similar to `word`, if one is similar enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (similarity(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= 0.65)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.len().cmp(&a.1.len())))
        .map(|(_, candidate)| candidate.to_owned())
}

/// From 0 to 1: by letters, in any order of the parts (`swin_coco`), or 0.7 for a part of the word (`heads`).
fn similarity(word: &str, candidate: &str) -> f64 {
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
