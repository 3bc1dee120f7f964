//! What a graph is written for.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// Which operators a graph may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// Those of `ai.onnx` alone, which every engine runs.
    #[default]
    Portable,
    /// Also the fused ones of ONNX Runtime.
    Ort,
}

impl Flavour {
    /// All of them.
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
            _ => Err(Error::option("--flavour", "`portable` or `ort`", text)),
        }
    }
}

/// Version of the standard operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opset(u32);

impl Opset {
    /// The oldest with `LayerNormalization`.
    const OLDEST: u32 = 17;
    /// The newest that the operators here were checked with.
    const NEWEST: u32 = 23;

    /// Version `number`, 17 to 23.
    ///
    /// # Errors
    /// [`Error::Option`] for another one.
    pub fn new(number: u32) -> Result<Self> {
        if (Self::OLDEST..=Self::NEWEST).contains(&number) {
            return Ok(Self(number));
        }
        Err(Error::option("--opset", &format!("{} to {}", Self::OLDEST, Self::NEWEST), &number.to_string()))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Version of the file format that came with it.
    pub fn ir_version(self) -> i64 {
        match self.0 {
            ..=18 => 8,
            19 | 20 => 9,
            21 | 22 => 10,
            _ => 11,
        }
    }

    /// Whether `Gelu` is one of its operators.
    pub fn has_gelu(self) -> bool {
        self.0 >= 20
    }

    /// Whether `ReduceMax` and `ReduceL2` take their axes as an input and not as an attribute.
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

/// What a graph is written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Which operators it may have.
    pub flavour: Flavour,
    /// Version of the standard ones.
    pub opset: Opset,
}
