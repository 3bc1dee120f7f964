//! What is known of a value when it is wired.

use std::sync::Arc;

use laps_model::{array::Array, dim::Dim};

use super::Element;

/// Numbers that are part of a graph.
#[derive(Clone, Debug)]
pub enum Content {
    /// Single precision, shared with whoever gave them.
    Float(Array),
    /// 64-bit integers.
    Whole(Arc<Vec<i64>>),
    /// Anything else: elements in row-major order, little-endian.
    Raw(Arc<Vec<u8>>),
}

impl Content {
    /// Their size in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Float(array) => size_of_val(array.values()),
            Self::Whole(values) => size_of_val(values.as_slice()),
            Self::Raw(bytes) => bytes.len(),
        }
    }

    /// Elements in row-major order, little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Float(array) => array.values().iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Whole(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Raw(bytes) => bytes.to_vec(),
        }
    }
}

/// Name, type and shape of a value, and its numbers where they are constant.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Unique in the graph.
    pub name: String,
    /// Type of its elements.
    pub element: Element,
    /// Size of each axis.
    pub shape: Vec<Dim>,
    /// Its numbers, where they do not depend on an input.
    pub content: Option<Content>,
}

impl Fact {
    /// The numbers of a constant in single precision.
    pub fn known(&self) -> Option<&Array> {
        match &self.content {
            Some(Content::Float(array)) => Some(array),
            _ => None,
        }
    }
}

/// An input or output of a graph: name, type and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type of its elements.
    pub element: Element,
    /// Size of each axis.
    pub shape: Vec<Dim>,
}
