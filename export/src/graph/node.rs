//! One operation of a graph.

use super::{Element, Id};

/// Whose operators a node is one of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Domain {
    /// `ai.onnx`, which every engine knows.
    #[default]
    Onnx,
    /// `com.microsoft`: those of ONNX Runtime.
    Microsoft,
}

impl Domain {
    /// As a file has it; empty for the standard.
    pub fn name(self) -> &'static str {
        match self {
            Self::Onnx => "",
            Self::Microsoft => "com.microsoft",
        }
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f32),
    /// Whole numbers.
    Ints(Vec<i64>),
}

/// An operator with its attributes, not yet applied to anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// Whose.
    pub domain: Domain,
    /// Its name.
    pub name: &'static str,
    /// In the order of writing.
    pub attributes: Vec<(&'static str, Attribute)>,
}

impl Operator {
    /// A standard operator without attributes.
    pub fn new(name: &'static str) -> Self {
        Self { domain: Domain::Onnx, name, attributes: Vec::new() }
    }

    /// One of ONNX Runtime's.
    pub fn microsoft(name: &'static str) -> Self {
        Self { domain: Domain::Microsoft, ..Self::new(name) }
    }

    /// The conversion to another type.
    pub fn cast(element: Element) -> Self {
        Self::new("Cast").with_int("to", element.onnx() as i64)
    }

    /// The same with an attribute more.
    pub fn with(mut self, name: &'static str, value: Attribute) -> Self {
        self.attributes.push((name, value));
        self
    }

    /// The same with a whole number as an attribute.
    pub fn with_int(self, name: &'static str, value: i64) -> Self {
        self.with(name, Attribute::Int(value))
    }

    /// The attribute `name` that is a whole number.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Attribute::Int(value) if *key == name => Some(*value),
            _ => None,
        })
    }

    /// The attribute `name` that is a number.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Attribute::Float(value) if *key == name => Some(*value),
            _ => None,
        })
    }

    /// The attribute `name` that is a list of whole numbers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Attribute::Ints(values) if *key == name => Some(values.as_slice()),
            _ => None,
        })
    }
}

/// An operator applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is done.
    pub operator: Operator,
    /// Its operands; None for one that is left out.
    pub inputs: Vec<Option<Id>>,
    /// Its results; None for one that nobody wants.
    pub outputs: Vec<Option<Id>>,
}

impl Node {
    /// Whether it is the standard operator `name`.
    pub fn is(&self, name: &str) -> bool {
        self.operator.domain == Domain::Onnx && self.operator.name == name
    }

    /// Operand `index`, where it is there.
    pub fn input(&self, index: usize) -> Option<Id> {
        self.inputs.get(index).copied().flatten()
    }

    /// The first result.
    pub fn output(&self) -> Option<Id> {
        self.outputs.first().copied().flatten()
    }
}
