//! Measures.

use serde::{Deserialize, Serialize};

use super::GateGroup;

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Unique in its group: `entry/.../what`, from general to specific.
    pub name: String,
    /// A count, a size in bytes, or a difference, as the name says.
    pub value: f64,
    /// The smallest and largest value that rounding could give, if rounding matters.
    pub bounds: Option<[f64; 2]>,
}

impl Measure {
    /// A value that rounding does not change.
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, bounds: None }
    }

    /// A count.
    pub fn count(name: impl Into<String>, count: usize) -> Self {
        // Below 2^53 every count is exact.
        Self::new(name, count as f64)
    }
}

/// The measures of a group, or why it was skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupMeasures {
    /// The group.
    pub group: GateGroup,
    /// The measures, or the reason for skipping them.
    pub measures: Result<Vec<Measure>, String>,
}

impl GroupMeasures {
    /// Measures of `group`.
    pub fn measured(group: GateGroup, measures: Vec<Measure>) -> Self {
        Self { group, measures: Ok(measures) }
    }

    /// A group that cannot be measured.
    pub fn skipped(group: GateGroup, reason: impl Into<String>) -> Self {
        Self { group, measures: Err(reason.into()) }
    }

    /// Adds the measures of another part of the group. If one part was skipped, the whole group is.
    pub fn with(self, other: Self) -> Self {
        let measures = match (self.measures, other.measures) {
            (Ok(first), Ok(second)) => Ok([first, second].concat()),
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
        };
        Self { group: self.group, measures }
    }
}
