//! Several operations as one of ONNX Runtime's.

use std::collections::HashMap;

use crate::graph::{Attribute, Flavour, Graph, Id, Node, Operator};

/// Where the target has the operators of ONNX Runtime: a residual addition and the norm behind it become
/// `SkipLayerNormalization`, a bias and the GELU behind it `BiasGelu`, a bias in front of either goes into it.
pub fn fuse(graph: &mut Graph) {
    if graph.target.flavour != Flavour::Ort {
        return;
    }
    let mut fusion = Fusion::new(graph);
    for index in 0..fusion.nodes.len() {
        if fusion.nodes[index].as_ref().is_some_and(|node| node.is("Gelu")) {
            fusion.gelu(index);
        } else if fusion.nodes[index].as_ref().is_some_and(|node| node.is("LayerNormalization")) {
            fusion.norm(index);
        }
    }
    let nodes = fusion.nodes;
    nodes.into_iter().flatten().for_each(|node| graph.append(node));
}

struct Fusion<'a> {
    graph: &'a mut Graph,
    /// None for one that is part of another.
    nodes: Vec<Option<Node>>,
    makers: HashMap<Id, usize>,
    uses: HashMap<Id, usize>,
}

impl<'a> Fusion<'a> {
    fn new(graph: &'a mut Graph) -> Self {
        let nodes = graph.take_nodes();
        let (mut makers, mut uses) = (HashMap::new(), HashMap::new());
        for (index, node) in nodes.iter().enumerate() {
            makers.extend(node.outputs.iter().flatten().map(|&id| (id, index)));
            node.inputs.iter().flatten().for_each(|&id| *uses.entry(id).or_default() += 1);
        }
        graph.outputs.iter().for_each(|&id| *uses.entry(id).or_default() += 1);
        Self { graph, nodes: nodes.into_iter().map(Some).collect(), makers, uses }
    }

    /// The `Add` that makes `id`.
    fn sum(&self, id: Id) -> Option<(usize, Id, Id)> {
        let index = *self.makers.get(&id)?;
        let node = self.nodes[index].as_ref().filter(|node| node.is("Add"))?;
        Some((index, node.input(0)?, node.input(1)?))
    }

    /// The `Add` of a constant of one axis that makes `id`, if nobody else uses the sum.
    fn bias(&self, id: Id) -> Option<(usize, Id, Id)> {
        let (index, x, bias) = self.sum(id)?;
        let fact = self.graph.fact(bias);
        (fact.content.is_some() && fact.shape.len() == 1 && self.uses.get(&id) == Some(&1)).then_some((index, x, bias))
    }

    fn gelu(&mut self, index: usize) {
        let Some(node) = self.nodes[index].clone() else { return };
        let Some(x) = node.input(0) else { return };
        let (operator, inputs) = match self.bias(x) {
            Some((addition, x, bias)) => {
                self.nodes[addition] = None;
                (Operator::microsoft("BiasGelu"), vec![Some(x), Some(bias)])
            }
            None => (Operator::microsoft("Gelu"), vec![Some(x)]),
        };
        self.nodes[index] = Some(Node { operator, inputs, outputs: node.outputs });
    }

    /// The fused node stands where the addition was: the sum, its fourth result, may be needed before the norm is.
    fn norm(&mut self, index: usize) {
        let Some(node) = self.nodes[index].clone() else { return };
        let (Some(sum), Some(weight), Some(shift)) = (node.input(0), node.input(1), node.input(2)) else { return };
        let Some((addition, left, right)) = self.sum(sum) else { return };
        let shape = |id: Id| &self.graph.fact(id).shape;
        if shape(sum).len() != 3 || shape(left) != shape(sum) || shape(right) != shape(sum) {
            return;
        }
        let mut inputs = vec![Some(left), Some(right), Some(weight), Some(shift)];
        if let Some((bias_addition, x, bias)) = self.bias(left) {
            self.nodes[bias_addition] = None;
            inputs[0] = Some(x);
            inputs.push(Some(bias));
        }
        let epsilon = node.operator.float("epsilon").unwrap_or_default();
        let operator = Operator::microsoft("SkipLayerNormalization").with("epsilon", Attribute::Float(epsilon));
        let mut outputs = node.outputs.clone();
        if self.uses.get(&sum).is_some_and(|&uses| uses > 1) {
            outputs.extend([None, None, Some(sum)]);
        }
        self.nodes[index] = None;
        self.nodes[addition] = Some(Node { operator, inputs, outputs });
    }
}
