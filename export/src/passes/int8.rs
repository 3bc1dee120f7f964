//! Weights in 8 bits.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use zoo::{Result, array::Array, dim::Dim};

use crate::graph::{Content, Element, Fact, Graph, Id, Node, Operator};

/// Products with constant weights in 8-bit integers: the weights with one scale for each output, the other operand with
/// one for each token that is found while it runs. Those that `left_out` names stay as they are, as does everything else.
///
/// # Errors
/// None but those of [`Array::new`], which a graph that was recorded does not bring about.
pub fn int8(graph: &mut Graph, left_out: &BTreeSet<String>) -> Result<()> {
    let mut operands = HashMap::new();
    for node in graph.take_nodes() {
        match product(graph, &node).filter(|product| !left_out.contains(&graph.fact(product.output).name)) {
            Some(product) => product.quantised(graph, &mut operands, product.output)?,
            None => graph.append(node),
        }
    }
    Ok(())
}

/// A product with a constant matrix.
pub(super) struct Product {
    pub(super) x: Id,
    pub(super) weight: Id,
    pub(super) output: Id,
    /// `(inputs, outputs)`.
    pub(super) values: Array,
}

/// What a node is if it is one.
pub(super) fn product(graph: &Graph, node: &Node) -> Option<Product> {
    let (x, weight, output) = node.is("MatMul").then(|| Some((node.input(0)?, node.input(1)?, node.output()?)))??;
    let values = graph.fact(weight).known().filter(|values| values.dims().len() == 2)?.clone();
    Some(Product { x, weight, output, values })
}

impl Product {
    /// Appends the nodes that make `output` in 8 bits; `operands` are those that were quantised already.
    pub(super) fn quantised(&self, graph: &mut Graph, operands: &mut HashMap<Id, Operand>, output: Id) -> Result<()> {
        let operand = *operands.entry(self.x).or_insert_with(|| quantise(graph, self.x));
        multiply(graph, (operand, self.weight, output), &self.values)
    }
}

/// An operand in 8 bits.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    /// Each token divided by its largest number, in 8 bits.
    numbers: Id,
    /// What they are multiplied by to be between -1 and 1 again.
    scale: Id,
    /// Which of them is 0.
    zero: Id,
    /// The largest number of each token.
    largest: Id,
}

/// `x` in 8 bits. One scale serves all of an operand, so each token is divided by its largest number first: otherwise the
/// few that are many times as large as the rest, as of `[SEP]`, leave the rest a fraction of the 256 levels.
fn quantise(graph: &mut Graph, x: Id) -> Operand {
    let Fact { name, shape, .. } = graph.fact(x).clone();
    let label = |end: &str| format!("{name}.{end}");
    let rank = shape.len();
    let column: Vec<Dim> = shape.iter().take(rank.saturating_sub(1)).copied().chain([1.into()]).collect();
    let absolute = graph.apply(Operator::new("Abs"), &[Some(x)], (Element::F32, shape.clone()), &label("absolute"));
    let axes = graph.whole(&label("axes"), &[rank as i64 - 1]);
    let reduce = Operator::new("ReduceMax").with_int("keepdims", 1);
    let inputs = [Some(absolute), Some(axes)];
    let largest = graph.apply(reduce, &inputs, (Element::F32, column.clone()), &label("largest"));
    // A token of zeros is divided by something else.
    let least = Array::new(&[], vec![1e-30]).ok().map(Content::Float);
    let least = graph.literal(Fact { name: label("least"), element: Element::F32, shape: Vec::new(), content: least });
    let inputs = [Some(largest), Some(least)];
    let largest = graph.apply(Operator::new("Max"), &inputs, (Element::F32, column), &label("largest"));
    let inputs = [Some(x), Some(largest)];
    let even = graph.apply(Operator::new("Div"), &inputs, (Element::F32, shape.clone()), &label("even"));
    let mut value = |end: &str, element, shape| graph.value(&label(end), element, shape);
    let numbers = value("quantised", Element::U8, shape);
    let scale = value("scale", Element::F32, Vec::new());
    let zero = value("zero", Element::U8, Vec::new());
    let outputs = vec![Some(numbers), Some(scale), Some(zero)];
    graph.append(Node { operator: Operator::new("DynamicQuantizeLinear"), inputs: vec![Some(even)], outputs });
    Operand { numbers, scale, zero, largest }
}

fn multiply(graph: &mut Graph, (x, weight, output): (Operand, Id, Id), values: &Array) -> Result<()> {
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
    let operands = [Some(x.numbers), Some(numbers), Some(x.zero)];
    let shape = result.shape.clone();
    let whole = (Element::I32, shape.clone());
    let product = graph.apply(Operator::new("MatMulInteger"), &operands, whole, &label("integer"));
    let cast = Operator::new("Cast").with_int("to", Element::F32.onnx() as i64);
    let product = graph.apply(cast, &[Some(product)], (Element::F32, shape.clone()), &label("float"));
    let both = [Some(x.scale), Some(scales)];
    let scale = graph.apply(Operator::new("Mul"), &both, (Element::F32, columns.to_vec()), &label("scale"));
    let even = graph.apply(Operator::new("Mul"), &[Some(product), Some(scale)], (Element::F32, shape), &label("even"));
    let inputs = vec![Some(even), Some(x.largest)];
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
