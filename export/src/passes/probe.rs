//! A graph with switches that round each product individually.

use std::sync::Arc;

use laps_model::Result;

use super::{
    half::bytes,
    int8::{QuantisedOperands, WeightProduct, product},
};
use crate::graph::{ConstantData, ElementType, Fact, Graph, Node, Operator, ValueId};

/// Reduced precision of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Half precision.
    Half,
    /// 8-bit integers, as by [`int8`](super::int8).
    Int8,
}

/// Computes each product with a constant matrix in both precisions, and selects the reduced one where the additional input
/// `switches`, `(products)`, is not 0. One session then measures the effect of every product on the output. Returns the
/// names of the products in the order of the switches.
///
/// # Errors
/// [`laps_model::Error::Operation`] if the graph already has an input `switches`.
pub fn probe(graph: &mut Graph, rounding: Rounding) -> Result<Vec<String>> {
    let nodes = graph.take_nodes();
    let products = nodes.iter().filter(|node| product(graph, node).is_some()).count();
    let switches = graph.input("switches", ElementType::I64, &[products.into()])?;
    let mut operands = QuantisedOperands::default();
    let mut names = Vec::with_capacity(products);
    for mut node in nodes {
        let Some(product) = product(graph, &node) else {
            graph.append(node);
            continue;
        };
        let Fact { name, shape, .. } = graph.fact(product.output).clone();
        let [exact, rounded] =
            ["exact", "rounded"].map(|end| graph.value(&format!("{name}.{end}"), ElementType::F32, shape.clone()));
        node.outputs = vec![Some(exact)];
        graph.append(node);
        match rounding {
            Rounding::Int8 => product.append_quantised(graph, &mut operands, rounded)?,
            Rounding::Half => halved(graph, &product, rounded),
        }
        let index = graph.i64_scalar(&format!("{name}.place"), names.len() as i64);
        let gather = Operator::new("Gather").with_int("axis", 0);
        let inputs = [Some(switches), Some(index)];
        let switch = graph.apply(gather, &inputs, (ElementType::I64, Vec::new()), &format!("{name}.switch"));
        let chosen = cast(graph, switch, ElementType::Bool, &format!("{name}.chosen"));
        let inputs = vec![Some(chosen), Some(rounded), Some(exact)];
        graph.append(Node { operator: Operator::new("Where"), inputs, outputs: vec![Some(product.output)] });
        names.push(name);
    }
    Ok(names)
}

/// Appends the nodes that compute `output` in half precision.
fn halved(graph: &mut Graph, product: &WeightProduct, output: ValueId) {
    let Fact { name, shape, .. } = graph.fact(output).clone();
    let x = cast(graph, product.x, ElementType::F16, &format!("{name}.operand"));
    let weight = graph.fact(product.weight).clone();
    let data = Some(ConstantData::Raw(Arc::new(bytes(product.values.values()))));
    let weight =
        graph.literal(Fact { name: format!("{name}.weight"), element: ElementType::F16, shape: weight.shape, data });
    let inputs = [Some(x), Some(weight)];
    let result = graph.apply(Operator::new("MatMul"), &inputs, (ElementType::F16, shape), &format!("{name}.half"));
    graph.append(Node {
        operator: Operator::cast(ElementType::F32),
        inputs: vec![Some(result)],
        outputs: vec![Some(output)],
    });
}

fn cast(graph: &mut Graph, from: ValueId, element: ElementType, label: &str) -> ValueId {
    let shape = graph.fact(from).shape.clone();
    graph.apply(Operator::cast(element), &[Some(from)], (element, shape), label)
}
