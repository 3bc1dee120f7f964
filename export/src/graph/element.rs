//! ElementType types of tensors.

use crate::protobuf::tensor_proto::DataType;

/// Type of the elements of a tensor in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// IEEE single precision (32 bits).
    F32,
    /// IEEE half precision (16 bits).
    F16,
    /// Signed 64-bit integers.
    I64,
    /// Signed 32-bit integers.
    I32,
    /// Signed 8-bit integers.
    I8,
    /// Unsigned 8-bit integers.
    U8,
    /// Booleans.
    Bool,
}

impl ElementType {
    /// The data type in ONNX files.
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

    /// The name in manifests, such as `float32`.
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
