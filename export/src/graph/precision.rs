//! Numeric precision of graphs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Numeric precision of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphPrecision {
    /// Single precision.
    #[default]
    Fp32,
    /// Half precision; norms, softmax and the score in single precision.
    Fp16,
    /// Products with weights in 8-bit integers, everything else in single precision.
    Int8,
}

impl GraphPrecision {
    /// All precisions.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Fp16, Self::Int8];
}

impl fmt::Display for GraphPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for GraphPrecision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "fp32" => Ok(Self::Fp32),
            "fp16" => Ok(Self::Fp16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::option("precision", "`fp32`, `fp16` or `int8`", text)),
        }
    }
}
