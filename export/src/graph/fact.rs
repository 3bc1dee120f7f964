//! Type, shape and constant data of a value.

use std::sync::Arc;

use laps_model::{array::Array, dim::Dim};

use super::ElementType;

/// Data of a constant.
#[derive(Clone, Debug)]
pub enum ConstantData {
    /// Single precision; the array shares its memory with the source.
    F32(Array),
    /// 64-bit integers.
    I64(Arc<Vec<i64>>),
    /// Any other element type: elements in row-major order, little-endian.
    Raw(Arc<Vec<u8>>),
}

impl ConstantData {
    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(array) => size_of_val(array.values()),
            Self::I64(values) => size_of_val(values.as_slice()),
            Self::Raw(bytes) => bytes.len(),
        }
    }

    /// The elements in row-major order, little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(array) => array.values().iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Raw(bytes) => bytes.to_vec(),
        }
    }
}

/// Name, type and shape of a value, and its data if it is a constant.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Name, unique in the graph.
    pub name: String,
    /// ElementType type.
    pub element: ElementType,
    /// Size of each axis.
    pub shape: Vec<Dim>,
    /// Data of a constant.
    pub data: Option<ConstantData>,
}

impl Fact {
    /// The array of a constant in single precision.
    pub fn constant_array(&self) -> Option<&Array> {
        match &self.data {
            Some(ConstantData::F32(array)) => Some(array),
            _ => None,
        }
    }
}

/// An input or output of a graph: name, type and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Name.
    pub name: String,
    /// ElementType type.
    pub element: ElementType,
    /// Size of each axis.
    pub shape: Vec<Dim>,
}
