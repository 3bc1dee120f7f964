//! A graph whose products can be rounded one by one.

use std::sync::Arc;

use laps_model::Result;

use super::{
    half::bytes,
    int8::{Operands, Product, product},
};
use crate::graph::{Content, Element, Fact, Graph, Id, Node, Operator};

/// To what numbers a product is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Half precision.
    Half,
    /// 8-bit integers, as [`int8`](super::int8) does it.
    Int8,
}

/// Computes each product with a constant matrix both ways, and takes the rounded one where the further input `switches`,
/// `(products)`, is not 0: what each of them does to the output is measured without loading a graph for it. Gives the
/// names of the products in the order of the switches.
///
/// # Errors
/// [`laps_model::Error::Operation`] if an input is called `switches` already.
pub fn probe(graph: &mut Graph, rounding: Rounding) -> Result<Vec<String>> {
    let nodes = graph.take_nodes();
    let products = nodes.iter().filter(|node| product(graph, node).is_some()).count();
    let switches = graph.input("switches", Element::I64, &[products.into()])?;
    let mut operands = Operands::default();
    let mut names = Vec::with_capacity(products);
    for mut node in nodes {
        let Some(product) = product(graph, &node) else {
            graph.append(node);
            continue;
        };
        let Fact { name, shape, .. } = graph.fact(product.output).clone();
        let [exact, rounded] =
            ["exact", "rounded"].map(|end| graph.value(&format!("{name}.{end}"), Element::F32, shape.clone()));
        node.outputs = vec![Some(exact)];
        graph.append(node);
        match rounding {
            Rounding::Int8 => product.quantised(graph, &mut operands, rounded)?,
            Rounding::Half => halved(graph, &product, rounded),
        }
        let place = graph.index(&format!("{name}.place"), names.len() as i64);
        let gather = Operator::new("Gather").with_int("axis", 0);
        let inputs = [Some(switches), Some(place)];
        let switch = graph.apply(gather, &inputs, (Element::I64, Vec::new()), &format!("{name}.switch"));
        let chosen = cast(graph, switch, Element::Bool, &format!("{name}.chosen"));
        let inputs = vec![Some(chosen), Some(rounded), Some(exact)];
        graph.append(Node { operator: Operator::new("Where"), inputs, outputs: vec![Some(product.output)] });
        names.push(name);
    }
    Ok(names)
}

/// Appends the nodes that make `output` in half precision.
fn halved(graph: &mut Graph, product: &Product, output: Id) {
    let Fact { name, shape, .. } = graph.fact(output).clone();
    let x = cast(graph, product.x, Element::F16, &format!("{name}.operand"));
    let weight = graph.fact(product.weight).clone();
    let content = Some(Content::Raw(Arc::new(bytes(product.values.values()))));
    let weight =
        graph.literal(Fact { name: format!("{name}.weight"), element: Element::F16, shape: weight.shape, content });
    let inputs = [Some(x), Some(weight)];
    let result = graph.apply(Operator::new("MatMul"), &inputs, (Element::F16, shape), &format!("{name}.half"));
    graph.append(Node {
        operator: Operator::cast(Element::F32),
        inputs: vec![Some(result)],
        outputs: vec![Some(output)],
    });
}

fn cast(graph: &mut Graph, from: Id, element: Element, label: &str) -> Id {
    let shape = graph.fact(from).shape.clone();
    graph.apply(Operator::cast(element), &[Some(from)], (element, shape), label)
}
