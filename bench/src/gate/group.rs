//! Kinds of measures, and how far each may move.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A kind of measures, with a baseline file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Tensors and numbers of every entry's model.
    Parameters,
    /// Nodes, initialisers and bytes of every graph that can be exported.
    Graphs,
    /// Hits of the embedded entries on their test split.
    Recalls,
    /// The most memory that an evaluation takes.
    Memory,
    /// How far the graphs of the embedded entries are from the model definition, by precision.
    Drift,
    /// Instructions of the similarity engine's kernels.
    Kernels,
}

/// How far a measure may move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Not at all.
    Exact,
    /// By nothing that rounding does not explain: the baseline lies within the bounds of the measure.
    Bounds,
    /// By this share, up or down.
    Within(f64),
    /// Up to this multiple of the baseline, or to a floor that is always allowed. Less is better, and does not fail.
    AtMost {
        /// The multiple.
        times: f64,
        /// The floor.
        floor: f64,
    },
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Memory, Self::Recalls, Self::Parameters, Self::Graphs, Self::Drift, Self::Kernels];

    /// The name, also that of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Graphs => "graphs",
            Self::Recalls => "recalls",
            Self::Memory => "memory",
            Self::Drift => "drift",
            Self::Kernels => "kernels",
        }
    }

    /// Its baseline file, in the folder of them.
    pub fn file(self) -> String {
        format!("{}.json", self.name())
    }

    /// How far its measures may move.
    pub fn rule(self) -> Rule {
        match self {
            Self::Parameters | Self::Graphs => Rule::Exact,
            Self::Recalls => Rule::Bounds,
            // What the allocator keeps and what decoders hold at once hang on when threads are run: three evaluations of
            // one entry came to 19.8 to 21.7 MB.
            Self::Memory => Rule::AtMost { times: 1.25, floor: 0.0 },
            // Sums in another order; below the floor nobody cares.
            Self::Drift => Rule::AtMost { times: 2.0, floor: 1e-6 },
            // The C library picks its copies and exponentials by the processor.
            Self::Kernels => Rule::Within(0.02),
        }
    }

    /// Whether the figures hang on the machine, so that the file says on which they were measured.
    pub fn hangs_on_machine(self) -> bool {
        matches!(self, Self::Memory | Self::Drift | Self::Kernels)
    }

    /// Whether each figure is of an entry, whose name it begins with.
    pub fn is_of_entries(self) -> bool {
        !matches!(self, Self::Kernels)
    }

    /// Whether a measure of the baseline may be missing here: not every processor has every instruction set.
    pub fn may_lack(self) -> bool {
        matches!(self, Self::Kernels)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Group {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name).ok_or_else(|| Error::Option {
            option: "--only",
            expected: Self::ALL.map(|group| format!("`{group}`")).join(", "),
            found: format!("`{name}`"),
        })
    }
}
