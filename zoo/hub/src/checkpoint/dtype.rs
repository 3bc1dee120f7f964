//! Element types of stored tensors.

use std::fmt;

use half::{bf16, f16};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
    /// Signed integer of 64 bits.
    I64,
    /// Signed integer of 32 bits.
    I32,
    /// Signed integer of 16 bits.
    I16,
    /// Signed integer of 8 bits.
    I8,
    /// Unsigned integer of 64 bits.
    U64,
    /// Unsigned integer of 32 bits.
    U32,
    /// Unsigned integer of 16 bits.
    U16,
    /// Unsigned integer of 8 bits.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// Complex number of two IEEE singles.
    C64,
    /// Complex number of two IEEE doubles.
    C128,
    /// Float of 8 bits with 4 of exponent, without infinities.
    F8E4M3,
    /// Float of 8 bits with 4 of exponent, without infinities and negative zero.
    F8E4M3Fnuz,
    /// Float of 8 bits with 5 of exponent.
    F8E5M2,
    /// Float of 8 bits with 5 of exponent, without infinities and negative zero.
    F8E5M2Fnuz,
    /// Power of two of 8 bits.
    F8E8M0,
    /// Any other type of safetensors: floats of 4 and 6 bits.
    Other,
}

impl Dtype {
    /// Whether a parameter can have this type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Size of one element in bytes; none for [`Dtype::Other`].
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Self::C128 => Some(16),
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => Some(8),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => Some(2),
            Self::I8 | Self::U8 | Self::Bool => Some(1),
            Self::F8E4M3 | Self::F8E4M3Fnuz | Self::F8E5M2 | Self::F8E5M2Fnuz | Self::F8E8M0 => Some(1),
            Self::Other => None,
        }
    }

    /// Size in bytes of the number, or of each of the two parts of a complex number; none for [`Dtype::Other`].
    pub(super) fn part_size(self) -> Option<usize> {
        match self {
            Self::C64 => Some(4),
            Self::C128 => Some(8),
            _ => self.size(),
        }
    }

    /// The name in a safetensors header; none for a type that safetensors lacks and for [`Dtype::Other`].
    pub(super) fn safetensors_name(self) -> Option<&'static str> {
        Some(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::C64 => "C64",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E5M2Fnuz => "F8_E5M2FNUZ",
            Self::F8E8M0 => "F8_E8M0",
            Self::C128 | Self::Other => return None,
        })
    }

    /// The type that `torch` calls `name`.
    pub(super) fn from_torch(name: &str) -> Option<Self> {
        Some(match name {
            "float64" => Self::F64,
            "float32" => Self::F32,
            "float16" => Self::F16,
            "bfloat16" => Self::Bf16,
            "complex64" => Self::C64,
            "complex128" => Self::C128,
            "int64" => Self::I64,
            "int32" => Self::I32,
            "int16" => Self::I16,
            "int8" => Self::I8,
            "uint64" => Self::U64,
            "uint32" => Self::U32,
            "uint16" => Self::U16,
            "uint8" => Self::U8,
            "bool" => Self::Bool,
            "float8_e4m3fn" => Self::F8E4M3,
            "float8_e4m3fnuz" => Self::F8E4M3Fnuz,
            "float8_e5m2" => Self::F8E5M2,
            "float8_e5m2fnuz" => Self::F8E5M2Fnuz,
            "float8_e8m0fnu" => Self::F8E8M0,
            _ => return None,
        })
    }

    /// Little-endian `bytes` as f32; none where this is not a float type.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        Some(match self {
            Self::F64 => map(bytes, |element| f64::from_le_bytes(element) as f32),
            Self::F32 => map(bytes, f32::from_le_bytes),
            Self::F16 => map(bytes, |element| f16::from_le_bytes(element).to_f32()),
            Self::Bf16 => map(bytes, |element| bf16::from_le_bytes(element).to_f32()),
            _ => return None,
        })
    }

    /// Number of elements that are NaN or infinite as f32; none where this is not a float type.
    pub(super) fn count_non_finite(self, bytes: &[u8]) -> Option<usize> {
        Some(match self {
            Self::F64 => count(bytes, |element| (f64::from_le_bytes(element) as f32).is_finite()),
            Self::F32 => count(bytes, |element| f32::from_le_bytes(element).is_finite()),
            Self::F16 => count(bytes, |element| f16::from_le_bytes(element).is_finite()),
            Self::Bf16 => count(bytes, |element| bf16::from_le_bytes(element).is_finite()),
            _ => return None,
        })
    }
}

fn map<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&element| convert(element)).collect()
}

fn count<const N: usize>(bytes: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> usize {
    bytes.as_chunks().0.iter().filter(|&&element| !is_finite(element)).count()
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::C64 => "complex64",
            Self::C128 => "complex128",
            Self::F8E4M3 => "float8_e4m3fn",
            Self::F8E4M3Fnuz => "float8_e4m3fnuz",
            Self::F8E5M2 => "float8_e5m2",
            Self::F8E5M2Fnuz => "float8_e5m2fnuz",
            Self::F8E8M0 => "float8_e8m0fnu",
            Self::Other => "another type",
        })
    }
}

impl From<safetensors::Dtype> for Dtype {
    fn from(dtype: safetensors::Dtype) -> Self {
        use safetensors::Dtype;
        match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U64 => Self::U64,
            Dtype::U32 => Self::U32,
            Dtype::U16 => Self::U16,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            Dtype::C64 => Self::C64,
            Dtype::F8_E4M3 => Self::F8E4M3,
            Dtype::F8_E4M3FNUZ => Self::F8E4M3Fnuz,
            Dtype::F8_E5M2 => Self::F8E5M2,
            Dtype::F8_E5M2FNUZ => Self::F8E5M2Fnuz,
            Dtype::F8_E8M0 => Self::F8E8M0,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::Dtype;

    #[test]
    fn float_types_are_decoded_and_other_types_are_not() {
        let values = [1.5, -0.25, f32::INFINITY, f32::NAN];
        let stored = [
            (Dtype::F64, values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect::<Vec<u8>>()),
            (Dtype::F32, values.iter().flat_map(|&x| x.to_le_bytes()).collect()),
            (Dtype::F16, values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
            (Dtype::Bf16, values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
        ];
        for (dtype, bytes) in stored {
            let decoded = dtype.decode(&bytes).unwrap();
            assert_eq!(decoded[..3], values[..3], "{dtype}");
            assert!(decoded[3].is_nan(), "{dtype}");
            assert_eq!(dtype.count_non_finite(&bytes), Some(2), "{dtype}");
        }
        assert!(Dtype::I64.decode(&[0; 8]).is_none());
        assert!(Dtype::Bool.count_non_finite(&[1]).is_none());
    }

    #[test]
    fn f64_beyond_f32_counts_as_infinite() {
        assert_eq!(Dtype::F64.count_non_finite(&1e300_f64.to_le_bytes()), Some(1));
    }
}
