//! Operators and nodes.

use super::{ElementType, ValueId};

/// Operator domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Domain {
    /// `ai.onnx`: operators that every ONNX engine supports.
    #[default]
    Onnx,
    /// `com.microsoft`: operators of ONNX Runtime.
    Microsoft,
}

impl Domain {
    /// The name in ONNX files; empty for the standard domain.
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
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f32),
    /// A list of integers.
    Ints(Vec<i64>),
}

/// An operator with its attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// Domain.
    pub domain: Domain,
    /// Name, such as `MatMul`.
    pub name: &'static str,
    /// Attributes in the order in which they are written.
    pub attributes: Vec<(&'static str, Attribute)>,
}

impl Operator {
    /// A standard operator without attributes.
    pub fn new(name: &'static str) -> Self {
        Self { domain: Domain::Onnx, name, attributes: Vec::new() }
    }

    /// An operator of ONNX Runtime without attributes.
    pub fn microsoft(name: &'static str) -> Self {
        Self { domain: Domain::Microsoft, ..Self::new(name) }
    }

    /// `Cast` to another element type.
    pub fn cast(element: ElementType) -> Self {
        Self::new("Cast").with_int("to", element.onnx() as i64)
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &'static str, value: Attribute) -> Self {
        self.attributes.push((name, value));
        self
    }

    /// Adds an integer attribute.
    pub fn with_int(self, name: &'static str, value: i64) -> Self {
        self.with(name, Attribute::Int(value))
    }

    /// The integer attribute `name`.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Attribute::Int(value) if *key == name => Some(*value),
            _ => None,
        })
    }

    /// The floating-point attribute `name`.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Attribute::Float(value) if *key == name => Some(*value),
            _ => None,
        })
    }

    /// The attribute `name` that is a list of integers.
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
    /// Operator.
    pub operator: Operator,
    /// Operands; None for an omitted optional one.
    pub inputs: Vec<Option<ValueId>>,
    /// Results; None for an unused optional one.
    pub outputs: Vec<Option<ValueId>>,
}

impl Node {
    /// Returns true for the standard operator `name`.
    pub fn is(&self, name: &str) -> bool {
        self.operator.domain == Domain::Onnx && self.operator.name == name
    }

    /// Operand `index`, if present.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// The first result.
    pub fn output(&self) -> Option<ValueId> {
        self.outputs.first().copied().flatten()
    }
}
