//! In which numbers a graph computes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Tolerance;
use crate::{Error, Result};

/// In which numbers a graph computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    Fp32,
    /// Half precision; norms, softmax and the score in single precision.
    Fp16,
    /// Products with weights in 8-bit integers, everything else in single precision.
    Int8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Fp16, Self::Int8];

    /// How far its outputs may be from those of the model definition.
    pub fn tolerance(self) -> Tolerance {
        match self {
            // Sums in another order.
            Self::Fp32 => Tolerance { largest: Some(1e-4), cosine: 0.999_999, rsum: 0.1 },
            // Eleven bits a number; a ViT of two blocks came to 0.9999999.
            Self::Fp16 => Tolerance { largest: None, cosine: 0.9995, rsum: 0.2 },
            // Eight bits a number, a step for each token; a ViT-S and a BERT of six blocks came to 0.9997.
            Self::Int8 => Tolerance { largest: None, cosine: 0.98, rsum: 2.0 },
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "fp32" => Ok(Self::Fp32),
            "fp16" => Ok(Self::Fp16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::option("--precision", "`fp32`, `fp16` or `int8`", text)),
        }
    }
}
