//! Graphs with typed values and symbolic sizes, and the tensor that records them.
//!
//! A [`Value`] is a tensor of the model definitions: running a model's `forward` on it writes the graph, once, without
//! data. The shape of every value is known when it is wired; a graph that does not fit is refused there, by an error that
//! names the module. What depends on no input is computed at once and stands in the graph as a constant, and operations
//! that change nothing are left out.

mod arithmetic;
mod attention;
mod builder;
mod element;
mod fact;
mod layout;
mod node;
mod recorder;
mod shapes;
mod target;

pub use builder::Graph;
pub use element::Element;
pub use fact::{Content, Fact, Port};
pub use node::{Attribute, Domain, Node, Operator};
pub use recorder::Value;
pub use target::{Flavour, Opset, Target};

/// A value of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub(crate) usize);
