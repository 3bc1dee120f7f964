//! Fusion into operators of ONNX Runtime.

use std::collections::HashMap;

use crate::graph::{Attribute, Flavour, Graph, Node, Operator, ValueId};

/// Fuses nodes if the target allows operators of ONNX Runtime: a residual addition and the following norm become
/// `SkipLayerNormalization`, a bias and the following GELU become `BiasGelu`. A bias before either is merged into it.
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
    /// None for a node that was fused into another one.
    nodes: Vec<Option<Node>>,
    producers: HashMap<ValueId, usize>,
    uses: HashMap<ValueId, usize>,
}

impl<'a> Fusion<'a> {
    fn new(graph: &'a mut Graph) -> Self {
        let nodes = graph.take_nodes();
        let (mut producers, mut uses) = (HashMap::new(), HashMap::new());
        for (index, node) in nodes.iter().enumerate() {
            producers.extend(node.outputs.iter().flatten().map(|&id| (id, index)));
            node.inputs.iter().flatten().for_each(|&id| *uses.entry(id).or_default() += 1);
        }
        graph.outputs.iter().for_each(|&id| *uses.entry(id).or_default() += 1);
        Self { graph, nodes: nodes.into_iter().map(Some).collect(), producers, uses }
    }

    /// The `Add` that computes `id`.
    fn sum(&self, id: ValueId) -> Option<(usize, ValueId, ValueId)> {
        let index = *self.producers.get(&id)?;
        let node = self.nodes[index].as_ref().filter(|node| node.is("Add"))?;
        Some((index, node.input(0)?, node.input(1)?))
    }

    /// The `Add` of a one-dimensional constant that computes `id`, if nothing else uses the sum.
    fn bias(&self, id: ValueId) -> Option<(usize, ValueId, ValueId)> {
        let (index, x, bias) = self.sum(id)?;
        let fact = self.graph.fact(bias);
        (fact.data.is_some() && fact.shape.len() == 1 && self.uses.get(&id) == Some(&1)).then_some((index, x, bias))
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

    /// Puts the fused node in the position of the addition, because its fourth result, the sum, may be used before the norm.
    fn norm(&mut self, index: usize) {
        let Some(node) = self.nodes[index].clone() else { return };
        let (Some(sum), Some(weight), Some(shift)) = (node.input(0), node.input(1), node.input(2)) else { return };
        let Some((addition, left, right)) = self.sum(sum) else { return };
        let shape = |id: ValueId| &self.graph.fact(id).shape;
        if shape(sum).len() != 3 || shape(left) != shape(sum) || shape(right) != shape(sum) {
            return;
        }
        let mut inputs = vec![Some(left), Some(right), Some(weight), Some(shift)];
        if let Some((bias_addition, x, bias)) = self.bias(left) {
            self.nodes[bias_addition] = None;
            inputs[0] = Some(x);
            inputs.push(Some(bias));
        }
        let eps = node.operator.float("epsilon").unwrap_or_default();
        let operator = Operator::microsoft("SkipLayerNormalization").with("epsilon", Attribute::Float(eps));
        let mut outputs = node.outputs.clone();
        if self.uses.get(&sum).is_some_and(|&uses| uses > 1) {
            outputs.extend([None, None, Some(sum)]);
        }
        self.nodes[index] = None;
        self.nodes[addition] = Some(Node { operator, inputs, outputs });
    }
}
