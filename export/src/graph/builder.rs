//! The graph: values, nodes and unique names.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use laps_model::{Error, Result};
use laps_model::{array::Array, dim::Dim};

use super::{ConstantData, ElementType, Fact, Node, Operator, Target, ValueId, ValueInfo, shapes::refused};

/// A graph: values, and nodes in topological order.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Name: `image`, `text` or `score`.
    pub name: &'static str,
    /// Operators and opset that the graph is written for.
    pub target: Target,
    /// Every value; an [`ValueId`] is an index into this list.
    pub(crate) facts: Vec<Fact>,
    /// Nodes in topological order.
    pub(crate) nodes: Vec<Node>,
    /// Inputs in order.
    pub(crate) inputs: Vec<ValueId>,
    /// Outputs in order.
    pub(crate) outputs: Vec<ValueId>,
    /// Index of the node that computes each value.
    producers: HashMap<ValueId, usize>,
    /// Padding masks by the attention bias computed from them.
    pub(super) paddings: HashMap<ValueId, ValueId>,
    /// Known lower bounds of values.
    pub(super) floors: HashMap<ValueId, f32>,
    names: BTreeSet<String>,
    modules: Vec<String>,
    /// Values by operator and operands, to record each operation once.
    recorded: HashMap<String, ValueId>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &'static str, target: Target) -> Self {
        Self {
            name,
            target,
            facts: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            producers: HashMap::new(),
            paddings: HashMap::new(),
            floors: HashMap::new(),
            names: BTreeSet::new(),
            modules: Vec::new(),
            recorded: HashMap::new(),
        }
    }

    /// Name, type, shape and constant data of a value.
    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.facts[id.0]
    }

    /// Nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Inputs in order.
    pub fn inputs(&self) -> Vec<ValueInfo> {
        self.ports(&self.inputs)
    }

    /// Outputs in order.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.ports(&self.outputs)
    }

    fn ports(&self, ids: &[ValueId]) -> Vec<ValueInfo> {
        let port =
            |fact: &Fact| ValueInfo { name: fact.name.clone(), element: fact.element, shape: fact.shape.clone() };
        ids.iter().map(|&id| port(self.fact(id))).collect()
    }

    /// Lower bound of a value, if known.
    pub(crate) fn floor(&self, id: ValueId) -> Option<f32> {
        self.floors.get(&id).copied()
    }

    /// The node that computes a value; None for an input or a constant.
    pub fn producer(&self, id: ValueId) -> Option<&Node> {
        self.producers.get(&id).map(|&index| &self.nodes[index])
    }

    /// The first input with an axis of the symbolic size `symbol`, and that axis.
    pub(super) fn symbol(&self, symbol: &str) -> Option<(ValueId, usize)> {
        self.inputs.iter().find_map(|&id| {
            let axis = self
                .fact(id)
                .shape
                .iter()
                .position(|size| matches!(size.parts(), Some((1, Some(own))) if own == symbol));
            axis.map(|axis| (id, axis))
        })
    }

    /// Adds an input.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is already in use.
    pub(crate) fn input(&mut self, name: &str, element: ElementType, shape: &[Dim]) -> Result<ValueId> {
        self.declare(name)?;
        let id = self.push(Fact { name: name.to_owned(), element, shape: shape.to_vec(), data: None });
        self.inputs.push(id);
        Ok(id)
    }

    /// Makes a value an output and renames it to `name`.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is already in use, or if the value is an input, a constant or already an output.
    pub(super) fn output(&mut self, name: &str, id: ValueId) -> Result<()> {
        if self.producer(id).is_none() || self.outputs.contains(&id) {
            return refused(
                "output",
                "a value that a node computes and that is not yet an output",
                &self.fact(id).name,
            );
        }
        self.declare(name)?;
        let old = mem::replace(&mut self.facts[id.0].name, name.to_owned());
        self.names.remove(&old);
        self.outputs.push(id);
        Ok(())
    }

    /// Adds a parameter under its full name.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is already in use.
    pub(super) fn parameter(&mut self, name: &str, array: Array) -> Result<ValueId> {
        self.declare(name)?;
        Ok(self.push(float(name.to_owned(), array)))
    }

    /// Adds a constant; equal constants of up to 64 values are shared.
    pub(super) fn constant(&mut self, label: &str, array: Array) -> ValueId {
        let bits = || array.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let key = (array.values().len() <= 64).then(|| format!("constant {:?} {:?}", array.dims(), bits()));
        self.once(key, |graph| graph.array(label, array))
    }

    /// Adds a constant that is not shared.
    pub(crate) fn array(&mut self, label: &str, array: Array) -> ValueId {
        self.literal(float(label.to_owned(), array))
    }

    /// Adds an i64 constant of one axis; equal constants are shared.
    pub(crate) fn i64_vector(&mut self, label: &str, values: &[i64]) -> ValueId {
        self.integers(label, values, vec![values.len().into()])
    }

    /// Adds an i64 scalar constant; equal constants are shared.
    pub(crate) fn i64_scalar(&mut self, label: &str, value: i64) -> ValueId {
        self.integers(label, &[value], Vec::new())
    }

    /// Adds an f32 scalar constant; equal constants are shared.
    pub(crate) fn f32_scalar(&mut self, label: &str, value: f32) -> ValueId {
        let same =
            |fact: &Fact| fact.shape.is_empty() && fact.constant_array().is_some_and(|known| known.values() == [value]);
        if let Some(index) = self.facts.iter().position(same) {
            return ValueId(index);
        }
        let data = Array::new(&[], vec![value]).ok().map(ConstantData::F32);
        self.literal(Fact { name: label.to_owned(), element: ElementType::F32, shape: Vec::new(), data })
    }

    fn integers(&mut self, label: &str, values: &[i64], shape: Vec<Dim>) -> ValueId {
        self.once(Some(format!("integers {shape:?} {values:?}")), |graph| {
            let name = graph.unique(label);
            let data = Some(ConstantData::I64(Arc::new(values.to_vec())));
            graph.push(Fact { name, element: ElementType::I64, shape, data })
        })
    }

    /// Adds a constant described by `fact`, with its name made unique.
    pub(crate) fn literal(&mut self, mut fact: Fact) -> ValueId {
        fact.name = self.unique(&fact.name);
        self.push(fact)
    }

    /// The constant that `compute` returns, computed once for the same operator and operands; `label` names it.
    pub(super) fn folded(
        &mut self,
        operator: &Operator,
        operands: &[ValueId],
        label: &str,
        compute: impl FnOnce() -> Result<Array>,
    ) -> Result<ValueId> {
        let key = key(operator, &operands.iter().copied().map(Some).collect::<Vec<_>>());
        if let Some(&id) = self.recorded.get(&key) {
            return Ok(id);
        }
        let id = self.constant(label, compute()?);
        self.recorded.insert(key, id);
        Ok(id)
    }

    /// Appends a node with one result of `element` and `shape`, or returns the result of an equal node.
    pub(crate) fn apply(
        &mut self,
        operator: Operator,
        inputs: &[Option<ValueId>],
        (element, shape): (ElementType, Vec<Dim>),
        label: &str,
    ) -> ValueId {
        let key = key(&operator, inputs);
        let inputs = inputs.to_vec();
        self.once(Some(key), |graph| {
            let name = graph.unique(label);
            let id = graph.push(Fact { name, element, shape, data: None });
            graph.append(Node { operator, inputs, outputs: vec![Some(id)] });
            id
        })
    }

    /// Adds a value that a later node computes.
    pub(crate) fn value(&mut self, label: &str, element: ElementType, shape: Vec<Dim>) -> ValueId {
        let name = self.unique(label);
        self.push(Fact { name, element, shape, data: None })
    }

    /// Appends a node whose output values exist already.
    pub(crate) fn append(&mut self, node: Node) {
        for &id in node.outputs.iter().flatten() {
            self.producers.insert(id, self.nodes.len());
        }
        self.nodes.push(node);
    }

    /// Removes and returns all nodes, for a pass that appends the rewritten ones.
    pub(crate) fn take_nodes(&mut self) -> Vec<Node> {
        self.producers.clear();
        self.recorded.clear();
        mem::take(&mut self.nodes)
    }

    /// Enters the module `name`, which prefixes the names of values recorded from now on.
    pub(super) fn enter(&mut self, name: &str) {
        self.modules.push(name.to_owned());
    }

    /// Leaves the innermost module.
    pub(super) fn leave(&mut self) -> Option<String> {
        self.modules.pop()
    }

    /// `operation` prefixed with the current module.
    pub(super) fn label(&self, operation: &str) -> String {
        match self.modules.last().filter(|module| !module.is_empty()) {
            Some(module) => format!("{module}.{operation}"),
            None => operation.to_owned(),
        }
    }

    fn once(&mut self, key: Option<String>, make: impl FnOnce(&mut Self) -> ValueId) -> ValueId {
        let Some(key) = key else { return make(self) };
        if let Some(&id) = self.recorded.get(&key) {
            return id;
        }
        let id = make(self);
        self.recorded.insert(key, id);
        id
    }

    fn push(&mut self, fact: Fact) -> ValueId {
        self.facts.push(fact);
        ValueId(self.facts.len() - 1)
    }

    /// Reserves a name that must be unused.
    fn declare(&mut self, name: &str) -> Result<()> {
        if self.names.insert(name.to_owned()) {
            return Ok(());
        }
        Err(Error::Operation {
            operation: "name",
            expected: "an unused name".to_owned(),
            found: format!("`{name}`, which is in use"),
        })
    }

    /// `label`, with a number appended if it is in use.
    fn unique(&mut self, label: &str) -> String {
        let mut name = label.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{label}_{count}");
        }
        name
    }
}

fn float(name: String, array: Array) -> Fact {
    let shape = array.dims().iter().map(|&size| size.into()).collect();
    Fact { name, element: ElementType::F32, shape, data: Some(ConstantData::F32(array)) }
}

fn key(operator: &Operator, inputs: &[Option<ValueId>]) -> String {
    format!("{operator:?} {inputs:?}")
}
