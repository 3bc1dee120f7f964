//! Numeric precision of stored embeddings.

use std::{fmt, str::FromStr};

use half::{f16, slice::HalfFloatSliceExt};
use serde::{Deserialize, Serialize};

use super::SearchError;

/// Precision in which an index stores embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexPrecision {
    /// Half precision.
    #[serde(rename = "fp16")]
    Half,
    /// Single precision: exactly the encoder's output.
    #[serde(rename = "fp32")]
    Single,
}

impl IndexPrecision {
    /// Bytes of a value.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
        }
    }

    /// The dtype's name in safetensors.
    pub(super) fn safetensors(self) -> &'static str {
        match self {
            Self::Half => "F16",
            Self::Single => "F32",
        }
    }

    /// Encodes `values` as little-endian bytes. `name` is the item's name, for errors.
    ///
    /// # Errors
    /// [`SearchError::Overflow`] for a finite value outside the range of fp16.
    pub(super) fn encode(self, values: &[f32], name: &str) -> Result<Vec<u8>, SearchError> {
        match self {
            Self::Single => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Self::Half => {
                let mut bytes = Vec::with_capacity(2 * values.len());
                for &value in values {
                    let half = f16::from_f32(value);
                    if half.is_infinite() {
                        return Err(SearchError::Overflow { name: name.to_owned(), value });
                    }
                    bytes.extend(half.to_le_bytes());
                }
                Ok(bytes)
            }
        }
    }

    /// Decodes little-endian `bytes` into `values`, which has one element for each stored value.
    pub(super) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::Single => {
                let words = bytes.as_chunks::<4>().0;
                values.iter_mut().zip(words).for_each(|(value, &word)| *value = f32::from_le_bytes(word));
            }
            Self::Half => {
                // Blocks of aligned values, which vector instructions convert.
                let mut block = [f16::ZERO; 256];
                for (values, words) in values.chunks_mut(block.len()).zip(bytes.as_chunks::<2>().0.chunks(block.len()))
                {
                    let halves = &mut block[..words.len()];
                    halves.iter_mut().zip(words).for_each(|(half, &word)| *half = f16::from_le_bytes(word));
                    halves.convert_to_f32_slice(values);
                }
            }
        }
    }
}

impl fmt::Display for IndexPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Half => "fp16",
            Self::Single => "fp32",
        })
    }
}

impl FromStr for IndexPrecision {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Self, SearchError> {
        match text {
            "fp16" => Ok(Self::Half),
            "fp32" => Ok(Self::Single),
            _ => Err(SearchError::Option {
                option: "precision",
                expected: "`fp16` or `fp32`",
                found: format!("`{text}`"),
            }),
        }
    }
}
