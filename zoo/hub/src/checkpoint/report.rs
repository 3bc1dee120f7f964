//! The report of how a checkpoint differs from a model.

use std::{fmt, path::PathBuf};

use super::{Dtype, hint};

/// Most tensors that are listed of each kind; the others are counted.
const MAX_LISTED: usize = 8;

/// All differences between a checkpoint and a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The checkpoint.
    pub path: PathBuf,
    /// Prefixes that were removed from the names in the file, see [`super::Checkpoint::removed_prefixes`].
    pub removed_prefixes: Vec<String>,
    /// Number of parameters of the model.
    pub parameters: usize,
    /// Parameters that the checkpoint lacks, in the order of the model.
    pub missing: Vec<String>,
    /// Tensors that the model lacks, without [`super::IGNORED`], sorted.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub shapes: Vec<WrongShape>,
    /// Tensors that are not stored as floats.
    pub types: Vec<WrongType>,
    /// Tensors with NaN or infinity.
    pub non_finite: Vec<NonFinite>,
    /// Entries of the state dict that are not tensors that can be read, see [`super::Checkpoint::skipped`]. They are no
    /// difference by themselves.
    pub skipped: Vec<Skipped>,
}

/// An entry of a state dict that is skipped: it is not a tensor with a value for each element, or cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub found: String,
}

/// A tensor of another shape.
#[derive(Clone, Debug, PartialEq)]
pub struct WrongShape {
    /// Its name.
    pub name: String,
    /// Shape in the model.
    pub expected: Vec<usize>,
    /// Shape in the checkpoint.
    pub found: Vec<usize>,
}

/// A tensor that is not stored as floats.
#[derive(Clone, Debug, PartialEq)]
pub struct WrongType {
    /// Its name.
    pub name: String,
    /// Type in the checkpoint.
    pub found: Dtype,
}

/// A tensor with NaN or infinity.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// Its name.
    pub name: String,
    /// Number of elements that are not finite.
    pub count: usize,
    /// Number of elements.
    pub elements: usize,
}

impl Report {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.shapes.is_empty()
            && self.types.is_empty()
            && self.non_finite.is_empty()
    }

    /// The likely cause of the differences, where one is recognised.
    pub fn hint(&self) -> Option<String> {
        hint::hint(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` does not fit the model of {} parameters", self.path.display(), self.parameters)?;
        if !self.removed_prefixes.is_empty() {
            let prefixes: Vec<_> = self.removed_prefixes.iter().map(|prefix| format!("`{prefix}`")).collect();
            write!(f, "\n  removed from the names: {}", prefixes.join(", "))?;
        }
        list(f, "missing", &self.missing, |name| format!("`{name}`"))?;
        list(f, "unexpected", &self.unexpected, |name| format!("`{name}`"))?;
        list(f, "wrong shape", &self.shapes, |WrongShape { name, expected, found }| {
            format!("`{name}`\n      expected: {expected:?}\n      found: {found:?}")
        })?;
        list(f, "wrong type", &self.types, |WrongType { name, found }| {
            format!("`{name}`\n      expected: f32, f16, bf16 or f64\n      found: {found}")
        })?;
        list(f, "not finite", &self.non_finite, |NonFinite { name, count, elements }| {
            format!("`{name}`: {count} of {elements} values are NaN or infinite")
        })?;
        list(f, "skipped", &self.skipped, Skipped::to_string)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.name, self.found)
    }
}

fn list<T>(f: &mut fmt::Formatter<'_>, title: &str, items: &[T], line: impl Fn(&T) -> String) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "\n  {title}: {}", items.len())?;
    for item in items.iter().take(MAX_LISTED) {
        write!(f, "\n    {}", line(item))?;
    }
    match items.len().saturating_sub(MAX_LISTED) {
        0 => Ok(()),
        rest => write!(f, "\n    ... and {rest} more"),
    }
}
