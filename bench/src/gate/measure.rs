//! What was measured.

use serde::{Deserialize, Serialize};

use super::Group;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Unique in its group: what it is of, from the outside in, between slashes.
    pub name: String,
    /// The figure, in the unit that the name says: a count, bytes, or a difference.
    pub value: f64,
    /// The least and the most that it may be, where rounding decides.
    pub bounds: Option<[f64; 2]>,
}

impl Measure {
    /// A figure that rounding has no part in.
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, bounds: None }
    }

    /// A count.
    pub fn count(name: impl Into<String>, count: usize) -> Self {
        // Below 2^53 every count is exact.
        Self::new(name, count as f64)
    }
}

/// The measures of a group, or why there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gathered {
    /// The group.
    pub group: Group,
    /// The measures, or why they were left out.
    pub measures: Result<Vec<Measure>, String>,
}

impl Gathered {
    /// Measures of `group`.
    pub fn measured(group: Group, measures: Vec<Measure>) -> Self {
        Self { group, measures: Ok(measures) }
    }

    /// A group that can not be measured here.
    pub fn skipped(group: Group, reason: impl Into<String>) -> Self {
        Self { group, measures: Err(reason.into()) }
    }
    /// The same with the measures of another part of the group; a reason why some were left out is one for all.
    pub fn with(self, other: Self) -> Self {
        let measures = match (self.measures, other.measures) {
            (Ok(first), Ok(second)) => Ok([first, second].concat()),
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
        };
        Self { group: self.group, measures }
    }
}
