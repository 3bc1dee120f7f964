//! Weights in 8 bits.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use laps_model::Result;
use laps_model::{array::Array, dim::Dim};

use crate::graph::{Content, Element, Fact, Graph, Id, Node, Operator};

/// Products with constant weights in 8-bit integers: the weights with one scale for each output, the other operand with
/// one for each token that is found while it runs, so that what a token becomes does not hang on those beside it. Those
/// that `left_out` names stay as they are, as does everything else.
///
/// # Errors
/// None but those of [`Array::new`], which a graph that was recorded does not bring about.
pub fn int8(graph: &mut Graph, left_out: &BTreeSet<String>) -> Result<()> {
    let mut operands = Operands::default();
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
    pub(super) fn quantised(&self, graph: &mut Graph, operands: &mut Operands, output: Id) -> Result<()> {
        let operand = match operands.known.get(&self.x) {
            Some(&operand) => operand,
            None => quantise(graph, self.x, operands),
        };
        multiply(graph, (operand, self.weight, output), &self.values)
    }
}

/// What was quantised already, and which levels of 0 there are: one for all, or as many as there are tokens.
#[derive(Default)]
pub(super) struct Operands {
    known: HashMap<Id, Operand>,
    zero: HashMap<u8, Id>,
    zeros: HashMap<(u8, Dim), Id>,
}

/// An operand in 8 bits: the number `q` of a token stands for `step * (q - zero)`.
#[derive(Clone, Copy)]
struct Operand {
    numbers: Id,
    /// The same for all tokens.
    zero: Id,
    /// One for each token.
    step: Id,
}

/// The level of 0 where both signs are as likely.
const EVEN: u8 = 128;
/// The level of 0 where nothing is less than a floor close to 0, as behind a GELU: most levels are for what is above it,
/// and a token of small numbers still has a small step. 16 to 96 turn the outputs of a ViT-S and of a BERT of six blocks
/// alike, 48 least.
const FLOORED: u8 = 48;

/// `x` in 8 bits. Each token has a step of its own: otherwise the few that are many times as large as the rest, as of
/// `[SEP]`, leave the rest a fraction of the 256 levels.
fn quantise(graph: &mut Graph, x: Id, operands: &mut Operands) -> Operand {
    let Fact { name, shape, .. } = graph.fact(x).clone();
    let label = |end: &str| format!("{name}.{end}");
    let floor = graph.floor(x);
    let level = if floor.is_some() { FLOORED } else { EVEN };
    let step = step(graph, x, (floor, level), &label);
    let zero = *operands.zero.entry(level).or_insert_with(|| {
        let content = Some(Content::Raw(Arc::new(vec![level])));
        graph.literal(Fact { name: label("zero"), element: Element::U8, shape: Vec::new(), content })
    });
    let numbers = match rows(&shape) {
        Some([rows, width]) => {
            let [all, flat, back] = [("all", vec![-1]), ("rows", sizes(&[rows, width])), ("shape", sizes(&shape))]
                .map(|(end, sizes)| graph.whole(&label(end), &sizes));
            let number = graph.number(&label("level"), f32::from(level));
            let mut apply = |operator, inputs: &[Id], element, shape: &[Dim], end: &str| {
                let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
                graph.apply(operator, &inputs, (element, shape.to_vec()), &label(end))
            };
            // The operator takes the steps along one axis, with a level of 0 for each of them.
            let steps = apply(Operator::new("Reshape"), &[step, all], Element::F32, &[rows], "steps");
            let zeros = *operands.zeros.entry((level, rows)).or_insert_with(|| {
                let floats =
                    apply(Operator::new("Clip"), &[steps, number, number], Element::F32, &[rows], "zeros.float");
                apply(Operator::cast(Element::U8), &[floats], Element::U8, &[rows], "zeros")
            });
            let tokens = apply(Operator::new("Reshape"), &[x, flat], Element::F32, &[rows, width], "tokens");
            let operator = Operator::new("QuantizeLinear").with_int("axis", 0);
            let numbers = apply(operator, &[tokens, steps, zeros], Element::U8, &[rows, width], "levels");
            apply(Operator::new("Reshape"), &[numbers, back], Element::U8, &shape, "u8")
        }
        None => {
            let inputs = [Some(x), Some(step)];
            let even = graph.apply(Operator::new("Div"), &inputs, (Element::F32, shape.clone()), &label("even"));
            let inputs = [Some(even), Some(graph.number(&label("one"), 1.0)), Some(zero)];
            graph.apply(Operator::new("QuantizeLinear"), &inputs, (Element::U8, shape), &label("u8"))
        }
    };
    let operand = Operand { numbers, zero, step };
    operands.known.insert(x, operand);
    operand
}

/// What one level of each token is: all of them reach from its smallest number, or the floor of all, to its largest.
fn step(graph: &mut Graph, x: Id, (floor, zero): (Option<f32>, u8), label: &dyn Fn(&str) -> String) -> Id {
    let shape = graph.fact(x).shape.clone();
    let last = shape.len().saturating_sub(1);
    let column: Vec<Dim> = shape.iter().take(last).copied().chain([1.into()]).collect();
    let axes = graph.whole(&label("axes"), &[last as i64]);
    let mut share = |reduction: &'static str, levels: f32, end: &str| {
        let operator = Operator::new(reduction).with_int("keepdims", 1);
        let found = graph.apply(operator, &[Some(x), Some(axes)], (Element::F32, column.clone()), &label(end));
        let levels = graph.number(&label("share"), 1.0 / levels);
        let inputs = [Some(found), Some(levels)];
        graph.apply(Operator::new("Mul"), &inputs, (Element::F32, column.clone()), &label("step"))
    };
    let above = share("ReduceMax", f32::from(u8::MAX - zero), "largest");
    let inputs = match floor {
        Some(floor) => vec![Some(above), Some(graph.number(&label("floor"), -floor / f32::from(zero)))],
        None => {
            let below = share("ReduceMin", -f32::from(zero), "smallest");
            // A token of zeros has some step.
            vec![Some(above), Some(below), Some(graph.number(&label("least"), 1e-30))]
        }
    };
    graph.apply(Operator::new("Max"), &inputs, (Element::F32, column), &label("step"))
}

/// Tokens in rows, where at most one of the sizes is not fixed: only then a constant says how to come back.
fn rows(shape: &[Dim]) -> Option<[Dim; 2]> {
    let (&width, tokens) = shape.split_last()?;
    let (fixed, open): (Vec<Dim>, Vec<Dim>) = tokens.iter().partition(|size| size.fixed().is_ok());
    let count: usize = fixed.iter().filter_map(|size| size.fixed().ok()).product();
    match open[..] {
        [] => Some([count.into(), width]),
        [size] => Some([size.times(count), width]),
        _ => None,
    }
}

/// As `Reshape` takes them.
fn sizes(shape: &[Dim]) -> Vec<i64> {
    shape.iter().map(|size| size.fixed().map_or(-1, |size| size as i64)).collect()
}

fn multiply(graph: &mut Graph, (x, weight, output): (Operand, Id, Id), values: &Array) -> Result<()> {
    let (weight, result) = (graph.fact(weight).clone(), graph.fact(output).clone());
    let (numbers, scales) = columns(values);
    let columns = &weight.shape[1..];
    let scales = graph.array(&format!("{}.scale", weight.name), Array::new(&[scales.len()], scales)?);
    let numbers = graph.literal(Fact {
        name: format!("{}.i8", weight.name),
        element: Element::I8,
        shape: weight.shape.clone(),
        content: Some(Content::Raw(Arc::new(numbers))),
    });

    let label = |end: &str| format!("{}.{end}", result.name);
    let operands = [Some(x.numbers), Some(numbers), Some(x.zero)];
    let shape = result.shape.clone();
    let whole = (Element::I32, shape.clone());
    let product = graph.apply(Operator::new("MatMulInteger"), &operands, whole, &label("integer"));
    let product =
        graph.apply(Operator::cast(Element::F32), &[Some(product)], (Element::F32, shape.clone()), &label("float"));
    let both = [Some(unit(graph)), Some(scales)];
    let scale = graph.apply(Operator::new("Mul"), &both, (Element::F32, columns.to_vec()), &label("scale"));
    let even = graph.apply(Operator::new("Mul"), &[Some(product), Some(scale)], (Element::F32, shape), &label("even"));
    let inputs = vec![Some(even), Some(x.step)];
    graph.append(Node { operator: Operator::new("Mul"), inputs, outputs: vec![Some(output)] });
    Ok(())
}

/// A 1 that is computed. ONNX Runtime makes one operation of a product, its conversion and its scale where that scale is
/// itself a product, and one of two constants it would have folded before.
fn unit(graph: &mut Graph) -> Id {
    let inputs = [graph.inputs.first().copied()];
    let size = graph.apply(Operator::new("Size"), &inputs, (Element::I64, Vec::new()), "unit.size");
    let sign = graph.apply(Operator::new("Sign"), &[Some(size)], (Element::I64, Vec::new()), "unit.sign");
    graph.apply(Operator::cast(Element::F32), &[Some(sign)], (Element::F32, Vec::new()), "unit")
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
