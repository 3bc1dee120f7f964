//! Operators and opset that a graph is written for.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// Set of operators that a graph may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// Operators of `ai.onnx` only, which every ONNX engine runs.
    #[default]
    Portable,
    /// Also the fused operators of ONNX Runtime.
    Ort,
}

impl Flavour {
    /// All flavours.
    pub const ALL: [Self; 2] = [Self::Portable, Self::Ort];
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Ort => "ort",
        })
    }
}

impl FromStr for Flavour {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "portable" => Ok(Self::Portable),
            "ort" => Ok(Self::Ort),
            _ => Err(Error::option("flavour", "`portable` or `ort`", text)),
        }
    }
}

/// ONNX opset version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opset(u32);

impl Opset {
    /// The first version with `LayerNormalization`.
    const OLDEST: u32 = 17;
    /// The newest version that the operators here are tested with.
    const NEWEST: u32 = 23;

    /// Opset `number`, 17 to 23.
    ///
    /// # Errors
    /// [`Error::Option`] for any other number.
    pub fn new(number: u32) -> Result<Self> {
        if (Self::OLDEST..=Self::NEWEST).contains(&number) {
            return Ok(Self(number));
        }
        Err(Error::option("opset", &format!("{} to {}", Self::OLDEST, Self::NEWEST), &number.to_string()))
    }

    /// Version number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The IR version (file format) released with this opset.
    pub fn ir_version(self) -> i64 {
        match self.0 {
            ..=18 => 8,
            19 | 20 => 9,
            21 | 22 => 10,
            _ => 11,
        }
    }

    /// Returns true if the opset has the operator `Gelu`.
    pub fn has_gelu(self) -> bool {
        self.0 >= 20
    }

    /// Returns true if `ReduceMax` and `ReduceL2` take their axes as an input instead of an attribute.
    pub fn reduces_by_input(self) -> bool {
        self.0 >= 18
    }
}

impl Default for Opset {
    fn default() -> Self {
        Self(18)
    }
}

impl fmt::Display for Opset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Operators and opset that a graph is written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Allowed operators.
    pub flavour: Flavour,
    /// Opset version.
    pub opset: Opset,
}
