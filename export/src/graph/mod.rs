//! Graphs with typed values and symbolic sizes, and the tensor that records them.
//!
//! [`GraphTensor`] implements the tensor trait of the model definitions: running a model's `forward` on it records the graph
//! once, without data. Every value has a shape when it is recorded; operands that do not fit are an error that names the
//! module. Operations on constants are computed at once and stored as constants, and operations without an effect are
//! omitted.

mod arithmetic;
mod attention;
mod builder;
mod element;
mod fact;
mod kind;
mod layout;
mod node;
mod precision;
mod recorder;
mod shapes;
mod target;

pub use builder::Graph;
pub use element::ElementType;
pub use fact::{ConstantData, Fact, ValueInfo};
pub use kind::GraphKind;
pub use node::{Attribute, Domain, Node, Operator};
pub use precision::GraphPrecision;
pub use recorder::GraphTensor;
pub use target::{Flavour, Opset, Target};

/// Index of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) usize);
