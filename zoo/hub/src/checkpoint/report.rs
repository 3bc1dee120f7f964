//! What does not fit between a checkpoint and a model, all of it at once.

use std::{fmt, path::PathBuf};

use super::{Dtype, hint};

/// Most tensors that are listed of each kind; the rest is counted.
const LISTED: usize = 8;

/// Everything in which a checkpoint differs from a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The checkpoint.
    pub path: PathBuf,
    /// How many tensors the model has.
    pub parameters: usize,
    /// What the model has and the checkpoint has not, in the order of the model.
    pub missing: Vec<String>,
    /// What the checkpoint has and the model has not, without [`super::IGNORED`], sorted.
    pub unexpected: Vec<String>,
    /// What has another shape.
    pub shapes: Vec<WrongShape>,
    /// What is stored as something else than floats.
    pub types: Vec<WrongType>,
    /// What holds NaN or infinity.
    pub non_finite: Vec<NonFinite>,
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

/// A tensor of another type than a float.
#[derive(Clone, Debug, PartialEq)]
pub struct WrongType {
    /// Its name.
    pub name: String,
    /// Type in the checkpoint.
    pub found: Dtype,
}

/// A tensor that holds NaN or infinity.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// Its name.
    pub name: String,
    /// How many of its elements.
    pub count: usize,
    /// How many it has.
    pub elements: usize,
}

impl Report {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.shapes.is_empty()
            && self.types.is_empty()
            && self.non_finite.is_empty()
    }

    /// What the checkpoint looks like instead, where that can be told.
    pub fn hint(&self) -> Option<String> {
        hint::hint(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` does not fit the model of {} parameters", self.path.display(), self.parameters)?;
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
        })
    }
}

fn list<T>(f: &mut fmt::Formatter<'_>, title: &str, items: &[T], line: impl Fn(&T) -> String) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "\n  {title}: {}", items.len())?;
    for item in items.iter().take(LISTED) {
        write!(f, "\n    {}", line(item))?;
    }
    match items.len().saturating_sub(LISTED) {
        0 => Ok(()),
        rest => write!(f, "\n    ... and {rest} more"),
    }
}
