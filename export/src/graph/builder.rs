//! The graph itself: values, nodes, names.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use laps_model::{Error, Result};
use laps_model::{array::Array, dim::Dim};

use super::{Content, Element, Fact, Id, Node, Operator, Port, Target, shapes::refused};

/// A graph: nodes in an order in which each comes after what it needs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Its name.
    pub name: &'static str,
    /// What it is written for.
    pub target: Target,
    /// Every value; an [`Id`] is a place here.
    pub(crate) facts: Vec<Fact>,
    /// The operations.
    pub(crate) nodes: Vec<Node>,
    /// In order.
    pub(crate) inputs: Vec<Id>,
    /// In order.
    pub(crate) outputs: Vec<Id>,
    /// For each value the node that makes it.
    producers: HashMap<Id, usize>,
    /// Masks by the attention bias that was made of them.
    pub(super) paddings: HashMap<Id, Id>,
    /// What is known to be the least of a value.
    pub(super) floors: HashMap<Id, f32>,
    names: BTreeSet<String>,
    modules: Vec<String>,
    /// What was recorded already, by operator and operands.
    known: HashMap<String, Id>,
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
            known: HashMap::new(),
        }
    }

    /// What is known of a value.
    pub fn fact(&self, id: Id) -> &Fact {
        &self.facts[id.0]
    }

    /// The operations, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Inputs, in order.
    pub fn inputs(&self) -> Vec<Port> {
        self.ports(&self.inputs)
    }

    /// Outputs, in order.
    pub fn outputs(&self) -> Vec<Port> {
        self.ports(&self.outputs)
    }

    fn ports(&self, ids: &[Id]) -> Vec<Port> {
        let port = |fact: &Fact| Port { name: fact.name.clone(), element: fact.element, shape: fact.shape.clone() };
        ids.iter().map(|&id| port(self.fact(id))).collect()
    }

    /// What no number of a value is less than, where that is known.
    pub(crate) fn floor(&self, id: Id) -> Option<f32> {
        self.floors.get(&id).copied()
    }

    /// The node that makes a value; none for an input and a constant.
    pub fn producer(&self, id: Id) -> Option<&Node> {
        self.producers.get(&id).map(|&index| &self.nodes[index])
    }

    /// The input and its axis that has `symbol` for a size.
    pub(super) fn symbol(&self, symbol: &str) -> Option<(Id, usize)> {
        self.inputs.iter().find_map(|&id| {
            let axis =
                self.fact(id).shape.iter().position(|size| matches!(size.parts(), (1, Some(own)) if own == symbol));
            axis.map(|axis| (id, axis))
        })
    }

    /// Declares an input.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is taken.
    pub(crate) fn input(&mut self, name: &str, element: Element, shape: &[Dim]) -> Result<Id> {
        self.declare(name)?;
        let id = self.push(Fact { name: name.to_owned(), element, shape: shape.to_vec(), content: None });
        self.inputs.push(id);
        Ok(id)
    }

    /// Declares a value to be an output.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is taken, or if the value is an input or constant.
    pub(super) fn output(&mut self, name: &str, id: Id) -> Result<()> {
        if self.producer(id).is_none() || self.outputs.contains(&id) {
            return refused("output", "a value that a node makes, once", &self.fact(id).name);
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
    /// [`Error::Operation`] if the name is taken.
    pub(super) fn parameter(&mut self, name: &str, array: Array) -> Result<Id> {
        self.declare(name)?;
        Ok(self.push(float(name.to_owned(), array)))
    }

    /// Adds a constant; a small one that is there already is taken again.
    pub(super) fn constant(&mut self, label: &str, array: Array) -> Id {
        let bits = || array.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let key = (array.values().len() <= 64).then(|| format!("constant {:?} {:?}", array.dims(), bits()));
        self.once(key, |graph| graph.array(label, array))
    }

    /// Adds a constant of its own, whatever is there already.
    pub(crate) fn array(&mut self, label: &str, array: Array) -> Id {
        self.literal(float(label.to_owned(), array))
    }

    /// Adds whole numbers as a constant of one axis.
    pub(crate) fn whole(&mut self, label: &str, values: &[i64]) -> Id {
        self.integers(label, values, vec![values.len().into()])
    }

    /// Adds a whole number as a constant without axes.
    pub(crate) fn index(&mut self, label: &str, value: i64) -> Id {
        self.integers(label, &[value], Vec::new())
    }

    /// Adds a number as a constant without axes; one that is there already is taken again.
    pub(crate) fn number(&mut self, label: &str, value: f32) -> Id {
        let same = |fact: &Fact| fact.shape.is_empty() && fact.known().is_some_and(|known| known.values() == [value]);
        if let Some(index) = self.facts.iter().position(same) {
            return Id(index);
        }
        let content = Array::new(&[], vec![value]).ok().map(Content::Float);
        self.literal(Fact { name: label.to_owned(), element: Element::F32, shape: Vec::new(), content })
    }

    fn integers(&mut self, label: &str, values: &[i64], shape: Vec<Dim>) -> Id {
        self.once(Some(format!("integers {shape:?} {values:?}")), |graph| {
            let name = graph.unique(label);
            let content = Some(Content::Whole(Arc::new(values.to_vec())));
            graph.push(Fact { name, element: Element::I64, shape, content })
        })
    }

    /// Adds a constant of another type; `fact` has its content, and a name that is made unique.
    pub(crate) fn literal(&mut self, mut fact: Fact) -> Id {
        fact.name = self.unique(&fact.name);
        self.push(fact)
    }

    /// What `compute` gives, or gave when it was asked under the same key; `label` names the result.
    pub(super) fn folded(
        &mut self,
        operator: &Operator,
        operands: &[Id],
        label: &str,
        compute: impl FnOnce() -> Result<Array>,
    ) -> Result<Id> {
        let key = key(operator, &operands.iter().copied().map(Some).collect::<Vec<_>>());
        if let Some(&id) = self.known.get(&key) {
            return Ok(id);
        }
        let id = self.constant(label, compute()?);
        self.known.insert(key, id);
        Ok(id)
    }

    /// Applies an operator with one result of `element` and `shape`. The same operator on the same operands is taken again.
    pub(crate) fn apply(
        &mut self,
        operator: Operator,
        inputs: &[Option<Id>],
        (element, shape): (Element, Vec<Dim>),
        label: &str,
    ) -> Id {
        let key = key(&operator, inputs);
        let inputs = inputs.to_vec();
        self.once(Some(key), |graph| {
            let name = graph.unique(label);
            let id = graph.push(Fact { name, element, shape, content: None });
            graph.append(Node { operator, inputs, outputs: vec![Some(id)] });
            id
        })
    }

    /// Adds a value without a node that makes it yet.
    pub(crate) fn value(&mut self, label: &str, element: Element, shape: Vec<Dim>) -> Id {
        let name = self.unique(label);
        self.push(Fact { name, element, shape, content: None })
    }

    /// Adds a node whose results are there.
    pub(crate) fn append(&mut self, node: Node) {
        for &id in node.outputs.iter().flatten() {
            self.producers.insert(id, self.nodes.len());
        }
        self.nodes.push(node);
    }

    /// Takes the nodes out, for a pass that appends them again, changed.
    pub(crate) fn take_nodes(&mut self) -> Vec<Node> {
        self.producers.clear();
        self.known.clear();
        mem::take(&mut self.nodes)
    }

    /// Enters the module `name`: what is recorded from now on is named after it.
    pub(super) fn enter(&mut self, name: &str) {
        self.modules.push(name.to_owned());
    }

    /// Leaves the module that was entered last.
    pub(super) fn leave(&mut self) -> Option<String> {
        self.modules.pop()
    }

    /// `operation` in the module that is being recorded.
    pub(super) fn label(&self, operation: &str) -> String {
        match self.modules.last().filter(|module| !module.is_empty()) {
            Some(module) => format!("{module}.{operation}"),
            None => operation.to_owned(),
        }
    }

    fn once(&mut self, key: Option<String>, make: impl FnOnce(&mut Self) -> Id) -> Id {
        let Some(key) = key else { return make(self) };
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let id = make(self);
        self.known.insert(key, id);
        id
    }

    fn push(&mut self, fact: Fact) -> Id {
        self.facts.push(fact);
        Id(self.facts.len() - 1)
    }

    /// Takes a name that has to be free.
    fn declare(&mut self, name: &str) -> Result<()> {
        if self.names.insert(name.to_owned()) {
            return Ok(());
        }
        Err(Error::Operation {
            operation: "name",
            expected: "a name that is not taken".to_owned(),
            found: format!("`{name}` a second time"),
        })
    }

    /// A name like `label` that is free.
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
    Fact { name, element: Element::F32, shape, content: Some(Content::Float(array)) }
}

fn key(operator: &Operator, inputs: &[Option<Id>]) -> String {
    format!("{operator:?} {inputs:?}")
}
