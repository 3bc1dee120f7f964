//! Half precision.

use std::{collections::HashMap, sync::Arc};

use half::f16;

use crate::graph::{Content, Domain, Element, Fact, Graph, Id, Node, Operator};

/// Computes in half precision what bears it. Norms, softmax and, in the graph `score`, all but the products with weights
/// stay in single precision; so do inputs and outputs. The softmax inside of a fused attention is that operator's own.
pub fn half(graph: &mut Graph) {
    let mut change = Change { in_half: HashMap::new(), in_single: HashMap::new() };
    for mut node in graph.take_nodes() {
        let wanted = if bears(graph, &node) { Element::F16 } else { Element::F32 };
        for input in node.inputs.iter_mut().flatten() {
            *input = change.value_as(graph, *input, wanted);
        }
        // What stays in single precision may be an output; what is in half is made under another name.
        if wanted == Element::F16 {
            for output in node.outputs.iter_mut().flatten() {
                let fact = graph.fact(*output).clone();
                if fact.element == Element::F32 {
                    let made = graph.value(&format!("{}.half", fact.name), Element::F16, fact.shape);
                    change.in_half.insert(*output, made);
                    *output = made;
                }
            }
        }
        graph.append(node);
    }
    for output in graph.outputs.clone() {
        if let Some(&made) = change.in_half.get(&output)
            && graph.producer(output).is_none()
        {
            graph.append(cast(made, output, Element::F32));
        }
    }
}

/// Operators that compute nothing, or that compute in half precision without harm.
fn bears(graph: &Graph, node: &Node) -> bool {
    let floats = node.outputs.iter().flatten().any(|&id| graph.fact(id).element == Element::F32);
    let product = node.is("MatMul") && node.input(1).is_some_and(|id| graph.fact(id).content.is_some());
    if !floats || graph.name == "score" {
        return product;
    }
    match node.operator.domain {
        Domain::Onnx => !matches!(
            node.operator.name,
            "LayerNormalization" | "Softmax" | "Cast" | "CumSum" | "ReduceSum" | "ReduceMax" | "ReduceL2"
        ),
        Domain::Microsoft => node.operator.name != "SkipLayerNormalization",
    }
}

fn cast(from: Id, to: Id, element: Element) -> Node {
    Node { operator: Operator::cast(element), inputs: vec![Some(from)], outputs: vec![Some(to)] }
}

/// Values that are there in the other precision.
struct Change {
    /// By their name in single precision.
    in_half: HashMap<Id, Id>,
    /// Made of the one in half precision.
    in_single: HashMap<Id, Id>,
}

impl Change {
    /// The value `id` of the graph in single precision as `wanted`; of another type than those two as it is.
    fn value_as(&mut self, graph: &mut Graph, id: Id, wanted: Element) -> Id {
        let fact = graph.fact(id).clone();
        if fact.element != Element::F32 {
            return id;
        }
        match (wanted, self.in_half.get(&id).copied()) {
            (Element::F16, Some(made)) => made,
            (Element::F16, None) => {
                let made = match fact.known() {
                    Some(known) => graph.literal(Fact {
                        name: format!("{}.half", fact.name),
                        element: Element::F16,
                        shape: fact.shape.clone(),
                        content: Some(Content::Raw(Arc::new(bytes(known.values())))),
                    }),
                    None => {
                        let made = graph.value(&format!("{}.half", fact.name), Element::F16, fact.shape.clone());
                        graph.append(cast(id, made, Element::F16));
                        made
                    }
                };
                self.in_half.insert(id, made);
                made
            }
            // A constant, an input, or made in single precision.
            (_, None) => id,
            (_, Some(_)) if fact.content.is_some() || graph.producer(id).is_some() || graph.inputs.contains(&id) => id,
            (_, Some(made)) => *self.in_single.entry(id).or_insert_with(|| {
                let single = graph.value(&format!("{}.single", fact.name), Element::F32, fact.shape.clone());
                graph.append(cast(made, single, Element::F32));
                single
            }),
        }
    }
}

/// Rounded to the nearest; what is beyond the range of half precision becomes its largest number.
pub(super) fn bytes(values: &[f32]) -> Vec<u8> {
    let bounded = |value: &f32| f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
    values.iter().flat_map(|value| bounded(value).to_le_bytes()).collect()
}
