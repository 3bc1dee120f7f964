//! Element types of tensors.

use crate::protobuf::tensor_proto::DataType;

/// Type of the elements of a tensor in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// 64-bit integers.
    I64,
    /// 32-bit integers.
    I32,
    /// 8-bit integers.
    I8,
    /// 8-bit integers without a sign.
    U8,
    /// Truth values.
    Bool,
}

impl Element {
    /// The number that ONNX has for it.
    pub fn onnx(self) -> DataType {
        match self {
            Self::F32 => DataType::Float,
            Self::F16 => DataType::Float16,
            Self::I64 => DataType::Int64,
            Self::I32 => DataType::Int32,
            Self::I8 => DataType::Int8,
            Self::U8 => DataType::Uint8,
            Self::Bool => DataType::Bool,
        }
    }

    /// The name that manifests have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }
}
