//! Conversion to half precision.

use std::{collections::HashMap, sync::Arc};

use half::f16;

use crate::graph::{ConstantData, Domain, ElementType, Fact, Graph, Node, Operator, ValueId};

/// Converts a graph to half precision. Norms, softmax, inputs and outputs stay in single precision; in the graph `score`,
/// everything but the products with weights does. The softmax inside a fused attention is up to that operator.
pub fn half(graph: &mut Graph) {
    let mut change = CastValues { in_half: HashMap::new(), in_single: HashMap::new() };
    for mut node in graph.take_nodes() {
        let wanted = if is_safe_in_half(graph, &node) { ElementType::F16 } else { ElementType::F32 };
        for input in node.inputs.iter_mut().flatten() {
            *input = change.value_as(graph, *input, wanted);
        }
        // Results in half precision get new values, so that graph outputs keep their names and types.
        if wanted == ElementType::F16 {
            for output in node.outputs.iter_mut().flatten() {
                let fact = graph.fact(*output).clone();
                if fact.element == ElementType::F32 {
                    let made = graph.value(&format!("{}.half", fact.name), ElementType::F16, fact.shape);
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
            graph.append(cast(made, output, ElementType::F32));
        }
    }
}

/// Returns true for nodes that only move data, or that are accurate enough in half precision.
fn is_safe_in_half(graph: &Graph, node: &Node) -> bool {
    let floats = node.outputs.iter().flatten().any(|&id| graph.fact(id).element == ElementType::F32);
    let product = node.is("MatMul") && node.input(1).is_some_and(|id| graph.fact(id).data.is_some());
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

fn cast(from: ValueId, to: ValueId, element: ElementType) -> Node {
    Node { operator: Operator::cast(element), inputs: vec![Some(from)], outputs: vec![Some(to)] }
}

/// Values that exist in the other precision.
struct CastValues {
    /// Half-precision versions by the single-precision value.
    in_half: HashMap<ValueId, ValueId>,
    /// Single-precision values cast back from half precision.
    in_single: HashMap<ValueId, ValueId>,
}

impl CastValues {
    /// The value `id` cast to `wanted`. Values that are not floating-point are returned unchanged.
    fn value_as(&mut self, graph: &mut Graph, id: ValueId, wanted: ElementType) -> ValueId {
        let fact = graph.fact(id).clone();
        if fact.element != ElementType::F32 {
            return id;
        }
        match (wanted, self.in_half.get(&id).copied()) {
            (ElementType::F16, Some(made)) => made,
            (ElementType::F16, None) => {
                let made = match fact.constant_array() {
                    Some(known) => graph.literal(Fact {
                        name: format!("{}.half", fact.name),
                        element: ElementType::F16,
                        shape: fact.shape.clone(),
                        data: Some(ConstantData::Raw(Arc::new(bytes(known.values())))),
                    }),
                    None => {
                        let made = graph.value(&format!("{}.half", fact.name), ElementType::F16, fact.shape.clone());
                        graph.append(cast(id, made, ElementType::F16));
                        made
                    }
                };
                self.in_half.insert(id, made);
                made
            }
            // A constant, an input, or a value computed in single precision.
            (_, None) => id,
            (_, Some(_)) if fact.data.is_some() || graph.producer(id).is_some() || graph.inputs.contains(&id) => id,
            (_, Some(made)) => *self.in_single.entry(id).or_insert_with(|| {
                let single = graph.value(&format!("{}.single", fact.name), ElementType::F32, fact.shape.clone());
                graph.append(cast(made, single, ElementType::F32));
                single
            }),
        }
    }
}

/// Rounds to the nearest f16, little-endian; values beyond its range are clamped.
pub(super) fn bytes(values: &[f32]) -> Vec<u8> {
    let bounded = |value: &f32| f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
    values.iter().flat_map(|value| bounded(value).to_le_bytes()).collect()
}
