//! Weights in 8 bits.

use std::{collections::HashMap, sync::Arc};

use zoo::{Result, array::Array, dim::Dim};

use crate::graph::{Content, Element, Fact, Graph, Id, Node, Operator};

/// Products with constant weights in 8-bit integers: the weights with one scale for each output, the other operand with
/// one that is found while it runs. Everything else stays as it is.
///
/// # Errors
/// None but those of [`Array::new`], which a graph that was recorded does not bring about.
pub fn int8(graph: &mut Graph) -> Result<()> {
    let mut quantised = HashMap::new();
    for node in graph.take_nodes() {
        let product = node.is("MatMul").then(|| Some((node.input(0)?, node.input(1)?, node.output()?))).flatten();
        let weight = product.and_then(|(_, weight, _)| graph.fact(weight).known().cloned());
        match (product, weight) {
            (Some((x, weight, output)), Some(values)) if values.dims().len() == 2 => {
                let operand = *quantised.entry(x).or_insert_with(|| quantise(graph, x));
                multiply(graph, (operand, weight, output), &values)?;
            }
            _ => graph.append(node),
        }
    }
    Ok(())
}

/// `x` in 8 bits, its scale and its zero.
fn quantise(graph: &mut Graph, x: Id) -> [Id; 3] {
    let fact = graph.fact(x).clone();
    let value =
        |graph: &mut Graph, end: &str, element, shape| graph.value(&format!("{}.{end}", fact.name), element, shape);
    let results = [
        value(graph, "quantised", Element::U8, fact.shape.clone()),
        value(graph, "scale", Element::F32, Vec::new()),
        value(graph, "zero", Element::U8, Vec::new()),
    ];
    let (operator, outputs) = (Operator::new("DynamicQuantizeLinear"), results.map(Some).to_vec());
    graph.append(Node { operator, inputs: vec![Some(x)], outputs });
    results
}

fn multiply(graph: &mut Graph, ([x, scale, zero], weight, output): ([Id; 3], Id, Id), values: &Array) -> Result<()> {
    let (weight, result) = (graph.fact(weight).clone(), graph.fact(output).clone());
    let (numbers, scales) = columns(values);
    let constant = |graph: &mut Graph, end: &str, element, shape: &[Dim], content| {
        graph.literal(Fact {
            name: format!("{}.{end}", weight.name),
            element,
            shape: shape.to_vec(),
            content: Some(content),
        })
    };
    let columns = &weight.shape[1..];
    let numbers = constant(graph, "quantised", Element::I8, &weight.shape, Content::Raw(Arc::new(numbers)));
    let scales = Array::new(&[scales.len()], scales)?;
    let scales = constant(graph, "scale", Element::F32, columns, Content::Float(scales));

    let label = |end: &str| format!("{}.{end}", result.name);
    let operands = [Some(x), Some(numbers), Some(zero)];
    let shape = result.shape.clone();
    let product =
        graph.apply(Operator::new("MatMulInteger"), &operands, (Element::I32, shape.clone()), &label("integer"));
    let cast = Operator::new("Cast").with_int("to", Element::F32.onnx() as i64);
    let product = graph.apply(cast, &[Some(product)], (Element::F32, shape), &label("float"));
    let both = [Some(scale), Some(scales)];
    let scale = graph.apply(Operator::new("Mul"), &both, (Element::F32, columns.to_vec()), &label("scale"));
    let inputs = vec![Some(product), Some(scale)];
    graph.append(Node { operator: Operator::new("Mul"), inputs, outputs: vec![Some(output)] });
    Ok(())
}

/// `(inputs, outputs)` as 8-bit integers, and the scale of each output.
fn columns(weight: &Array) -> (Vec<u8>, Vec<f32>) {
    let width = weight.dims()[1];
    let mut scales = vec![0.0f32; width];
    for row in weight.values().chunks_exact(width) {
        scales.iter_mut().zip(row).for_each(|(scale, value)| *scale = scale.max(value.abs()));
    }
    // A column of zeros has any scale.
    scales.iter_mut().for_each(|scale| *scale = if *scale > 0.0 { *scale / 127.0 } else { 1.0 });
    let rounded = |(value, scale): (&f32, &f32)| (value / scale).round().clamp(-127.0, 127.0) as i8;
    let numbers = weight.values().chunks_exact(width).flat_map(|row| row.iter().zip(&scales).map(rounded));
    (numbers.map(|number| number.to_le_bytes()[0]).collect(), scales)
}
