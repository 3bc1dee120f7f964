//! Lowering to the operators of the target opset.

use crate::graph::{Attribute, ConstantData, Domain, Graph, Node, Operator, ValueId};

/// Expands `Gelu` to the error function before opset 20, and turns axes of reductions into attributes before opset 18.
pub fn lower(graph: &mut Graph) {
    let opset = graph.target.opset;
    for node in graph.take_nodes() {
        match node.operator.name {
            "Gelu" if node.operator.domain == Domain::Onnx && !opset.has_gelu() => gelu(graph, node),
            "ReduceMax" | "ReduceMin" | "ReduceL2" if !opset.reduces_by_input() => reduce(graph, node),
            _ => graph.append(node),
        }
    }
}

/// `x * (1 + erf(x / sqrt(2))) / 2`, in the order that ONNX Runtime recognises and fuses.
fn gelu(graph: &mut Graph, node: Node) {
    let (Some(x), Some(output)) = (node.input(0), node.output()) else { return graph.append(node) };
    let fact = graph.fact(x).clone();
    let label = graph.fact(output).name.clone();
    let apply = |graph: &mut Graph, operator, inputs: [Option<ValueId>; 2], step: &str| {
        let inputs: Vec<_> = inputs.into_iter().filter(Option::is_some).collect();
        graph.apply(Operator::new(operator), &inputs, (fact.element, fact.shape.clone()), &format!("{label}.{step}"))
    };
    let [root, one, half] =
        [std::f32::consts::SQRT_2, 1.0, 0.5].map(|value| graph.f32_scalar(&format!("{label}.number"), value));
    let scaled = apply(graph, "Div", [Some(x), Some(root)], "scaled");
    let erf = apply(graph, "Erf", [Some(scaled), None], "erf");
    let sum = apply(graph, "Add", [Some(erf), Some(one)], "sum");
    let product = apply(graph, "Mul", [Some(x), Some(sum)], "product");
    let inputs = vec![Some(product), Some(half)];
    graph.append(Node { operator: Operator::new("Mul"), inputs, outputs: vec![Some(output)] });
}

fn reduce(graph: &mut Graph, mut node: Node) {
    let axes = node.input(1).and_then(|id| match &graph.fact(id).data {
        Some(ConstantData::I64(axes)) => Some(axes.to_vec()),
        _ => None,
    });
    if let Some(axes) = axes {
        node.inputs.truncate(1);
        node.operator = node.operator.with("axes", Attribute::Ints(axes));
    }
    graph.append(node);
}
