//! Groups of measures, and how far the values of each may change.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A group of measures with its own baseline file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateGroup {
    /// Tensors and parameters of every entry's model.
    Parameters,
    /// Nodes, initialisers and bytes of every exportable graph.
    Graphs,
    /// Hits of the embedded entries on their test split.
    Recalls,
    /// Peak memory of an evaluation.
    Memory,
    /// Differences between the graphs of the embedded entries and the model definition, by precision.
    Drift,
    /// Instruction counts of the similarity engine's kernels.
    Kernels,
    /// Hits of results of `reproduce` and `evaluate`.
    Results,
}

/// How far a value may change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AllowedChange {
    /// Not at all.
    Exact,
    /// As far as rounding explains: the baseline is within the bounds of the measure.
    Bounds,
    /// By this share, up or down.
    Within(f64),
    /// Up to a multiple of the baseline, or up to a floor that is always allowed. Lower values never fail.
    AtMost {
        /// The multiple.
        times: f64,
        /// The floor.
        floor: f64,
    },
}

impl GateGroup {
    /// Every group.
    pub const ALL: [Self; 7] =
        [Self::Memory, Self::Recalls, Self::Parameters, Self::Graphs, Self::Drift, Self::Kernels, Self::Results];

    /// Its name in arguments and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Graphs => "graphs",
            Self::Recalls => "recalls",
            Self::Memory => "memory",
            Self::Drift => "drift",
            Self::Kernels => "kernels",
            Self::Results => "results",
        }
    }

    /// Name of its baseline file.
    pub fn file(self) -> String {
        format!("{}.json", self.name())
    }

    /// How far its values may change.
    pub fn allowed_change(self) -> AllowedChange {
        match self {
            Self::Parameters | Self::Graphs | Self::Results => AllowedChange::Exact,
            Self::Recalls => AllowedChange::Bounds,
            // Thread scheduling changes what the allocator keeps and how many images are decoded at once: three
            // evaluations of one entry needed 19.8 to 21.7 MB.
            Self::Memory => AllowedChange::AtMost { times: 1.25, floor: 0.0 },
            // Sums in another order differ; differences below the floor do not matter.
            Self::Drift => AllowedChange::AtMost { times: 2.0, floor: 1e-6 },
            // The C library selects its copy and exp functions by CPU.
            Self::Kernels => AllowedChange::Within(0.02),
        }
    }

    /// Whether the values depend on the machine; the baseline file then names it.
    pub fn depends_on_machine(self) -> bool {
        matches!(self, Self::Memory | Self::Drift | Self::Kernels)
    }

    /// Whether each value belongs to an entry; its name then starts with the entry's.
    pub fn is_per_entry(self) -> bool {
        !matches!(self, Self::Kernels | Self::Results)
    }

    /// Whether a measure of the baseline may be missing: not every CPU has every instruction set.
    pub fn may_be_missing(self) -> bool {
        matches!(self, Self::Kernels)
    }
}

impl fmt::Display for GateGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GateGroup {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name).ok_or_else(|| Error::Argument {
            argument: "group",
            expected: Self::ALL.map(|group| format!("`{group}`")).join(", "),
            found: format!("`{name}`"),
        })
    }
}
