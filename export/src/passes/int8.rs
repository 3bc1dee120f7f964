//! Dynamic quantisation of products with constant weights to 8-bit integers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use laps_model::Result;
use laps_model::{array::Array, dim::Dim};

use crate::graph::{ConstantData, ElementType, Fact, Graph, Node, Operator, ValueId};

/// Quantises products with constant weights to 8-bit integers. Weights have one scale per output channel. Activations have
/// one scale per token, computed at run time, so that the result of a token does not depend on the rest of the batch.
/// Products named in `left_out` and all other nodes stay unchanged.
///
/// # Errors
/// Those of [`Array::new`], which recorded graphs do not cause.
pub fn int8(graph: &mut Graph, left_out: &BTreeSet<String>) -> Result<()> {
    let mut operands = QuantisedOperands::default();
    for node in graph.take_nodes() {
        match product(graph, &node).filter(|product| !left_out.contains(&graph.fact(product.output).name)) {
            Some(product) => product.append_quantised(graph, &mut operands, product.output)?,
            None => graph.append(node),
        }
    }
    Ok(())
}

/// A `MatMul` with a constant weight matrix.
pub(super) struct WeightProduct {
    pub(super) x: ValueId,
    pub(super) weight: ValueId,
    pub(super) output: ValueId,
    /// `(inputs, outputs)`.
    pub(super) values: Array,
}

/// The node as a product with a constant matrix, if it is one.
pub(super) fn product(graph: &Graph, node: &Node) -> Option<WeightProduct> {
    let (x, weight, output) = node.is("MatMul").then(|| Some((node.input(0)?, node.input(1)?, node.output()?)))??;
    let values = graph.fact(weight).constant_array().filter(|values| values.dims().len() == 2)?.clone();
    Some(WeightProduct { x, weight, output, values })
}

impl WeightProduct {
    /// Appends the nodes that compute `output` in 8 bits; `operands` caches quantised activations.
    pub(super) fn append_quantised(
        &self,
        graph: &mut Graph,
        operands: &mut QuantisedOperands,
        output: ValueId,
    ) -> Result<()> {
        let operand = match operands.quantised.get(&self.x) {
            Some(&operand) => operand,
            None => quantise(graph, self.x, operands),
        };
        multiply(graph, (operand, self.weight, output), &self.values)
    }
}

/// Cache of quantised activations and of zero points: scalars, and vectors with one entry per token.
#[derive(Default)]
pub(super) struct QuantisedOperands {
    quantised: HashMap<ValueId, QuantisedOperand>,
    zero_point: HashMap<u8, ValueId>,
    zero_points: HashMap<(u8, Dim), ValueId>,
}

/// A quantised activation: the value of the level `q` is `scale * (q - zero_point)`.
#[derive(Clone, Copy)]
struct QuantisedOperand {
    levels: ValueId,
    /// Scalar zero point.
    zero_point: ValueId,
    /// One scale per token.
    scale: ValueId,
}

/// Zero point of activations of either sign.
const ZERO_POINT_SYMMETRIC: u8 = 128;
/// Zero point of activations with a lower bound close to 0, as after a GELU. Most levels are then positive, and a token of
/// small values still has a small scale. On a ViT-S and a six-block BERT the values 16 to 96 give about the same cosine
/// distance, 48 the smallest.
const ZERO_POINT_BOUNDED: u8 = 48;

/// Quantises `x` with one scale per token. With a shared scale, the few tokens that are many times larger than the rest,
/// such as `[SEP]`, would leave the rest a fraction of the 256 levels.
fn quantise(graph: &mut Graph, x: ValueId, operands: &mut QuantisedOperands) -> QuantisedOperand {
    let Fact { name, shape, .. } = graph.fact(x).clone();
    let label = |end: &str| format!("{name}.{end}");
    let floor = graph.floor(x);
    let level = if floor.is_some() { ZERO_POINT_BOUNDED } else { ZERO_POINT_SYMMETRIC };
    let scale = token_scale(graph, x, (floor, level), &label);
    let zero_point = *operands.zero_point.entry(level).or_insert_with(|| {
        let data = Some(ConstantData::Raw(Arc::new(vec![level])));
        graph.literal(Fact { name: label("zero"), element: ElementType::U8, shape: Vec::new(), data })
    });
    let levels = match rows(&shape) {
        Some([rows, width]) => {
            let [all, flat, back] = [("all", vec![-1]), ("rows", sizes(&[rows, width])), ("shape", sizes(&shape))]
                .map(|(end, sizes)| graph.i64_vector(&label(end), &sizes));
            let number = graph.f32_scalar(&label("level"), f32::from(level));
            let mut apply = |operator, inputs: &[ValueId], element, shape: &[Dim], end: &str| {
                let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
                graph.apply(operator, &inputs, (element, shape.to_vec()), &label(end))
            };
            // `QuantizeLinear` takes the scales along one axis, with a zero point for each of them.
            let scales = apply(Operator::new("Reshape"), &[scale, all], ElementType::F32, &[rows], "steps");
            let zeros = *operands.zero_points.entry((level, rows)).or_insert_with(|| {
                let floats =
                    apply(Operator::new("Clip"), &[scales, number, number], ElementType::F32, &[rows], "zeros.float");
                apply(Operator::cast(ElementType::U8), &[floats], ElementType::U8, &[rows], "zeros")
            });
            let tokens = apply(Operator::new("Reshape"), &[x, flat], ElementType::F32, &[rows, width], "tokens");
            let operator = Operator::new("QuantizeLinear").with_int("axis", 0);
            let levels = apply(operator, &[tokens, scales, zeros], ElementType::U8, &[rows, width], "levels");
            apply(Operator::new("Reshape"), &[levels, back], ElementType::U8, &shape, "u8")
        }
        None => {
            let inputs = [Some(x), Some(scale)];
            let even = graph.apply(Operator::new("Div"), &inputs, (ElementType::F32, shape.clone()), &label("even"));
            let inputs = [Some(even), Some(graph.f32_scalar(&label("one"), 1.0)), Some(zero_point)];
            graph.apply(Operator::new("QuantizeLinear"), &inputs, (ElementType::U8, shape), &label("u8"))
        }
    };
    let operand = QuantisedOperand { levels, zero_point, scale };
    operands.quantised.insert(x, operand);
    operand
}

/// The scale of each token. The levels range from the token's smallest value, or the lower bound `floor`, to its largest.
fn token_scale(
    graph: &mut Graph,
    x: ValueId,
    (floor, zero_point): (Option<f32>, u8),
    label: &dyn Fn(&str) -> String,
) -> ValueId {
    let shape = graph.fact(x).shape.clone();
    let last = shape.len().saturating_sub(1);
    let column: Vec<Dim> = shape.iter().take(last).copied().chain([1.into()]).collect();
    let axes = graph.i64_vector(&label("axes"), &[last as i64]);
    let mut share = |reduction: &'static str, levels: f32, end: &str| {
        let operator = Operator::new(reduction).with_int("keepdims", 1);
        let found = graph.apply(operator, &[Some(x), Some(axes)], (ElementType::F32, column.clone()), &label(end));
        let levels = graph.f32_scalar(&label("share"), 1.0 / levels);
        let inputs = [Some(found), Some(levels)];
        graph.apply(Operator::new("Mul"), &inputs, (ElementType::F32, column.clone()), &label("step"))
    };
    let above = share("ReduceMax", f32::from(u8::MAX - zero_point), "largest");
    let inputs = match floor {
        Some(floor) => vec![Some(above), Some(graph.f32_scalar(&label("floor"), -floor / f32::from(zero_point)))],
        None => {
            let below = share("ReduceMin", -f32::from(zero_point), "smallest");
            // A token of zeros needs a positive scale.
            vec![Some(above), Some(below), Some(graph.f32_scalar(&label("least"), 1e-30))]
        }
    };
    graph.apply(Operator::new("Max"), &inputs, (ElementType::F32, column), &label("step"))
}

/// The shape flattened to `(tokens, width)`, or None if more than one size is symbolic: a constant shape could then not
/// restore the original one.
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

/// The `shape` operand of `Reshape`.
fn sizes(shape: &[Dim]) -> Vec<i64> {
    shape.iter().map(|size| size.fixed().map_or(-1, |size| size as i64)).collect()
}

fn multiply(
    graph: &mut Graph,
    (x, weight, output): (QuantisedOperand, ValueId, ValueId),
    values: &Array,
) -> Result<()> {
    let (weight, result) = (graph.fact(weight).clone(), graph.fact(output).clone());
    let (levels, scales) = quantise_weight(values);
    let columns = &weight.shape[1..];
    let scales = graph.array(&format!("{}.scale", weight.name), Array::new(&[scales.len()], scales)?);
    let levels = graph.literal(Fact {
        name: format!("{}.i8", weight.name),
        element: ElementType::I8,
        shape: weight.shape.clone(),
        data: Some(ConstantData::Raw(Arc::new(levels))),
    });

    let label = |end: &str| format!("{}.{end}", result.name);
    let operands = [Some(x.levels), Some(levels), Some(x.zero_point)];
    let shape = result.shape.clone();
    let whole = (ElementType::I32, shape.clone());
    let product = graph.apply(Operator::new("MatMulInteger"), &operands, whole, &label("integer"));
    let product = graph.apply(
        Operator::cast(ElementType::F32),
        &[Some(product)],
        (ElementType::F32, shape.clone()),
        &label("float"),
    );
    let both = [Some(unit(graph)), Some(scales)];
    let scale = graph.apply(Operator::new("Mul"), &both, (ElementType::F32, columns.to_vec()), &label("scale"));
    let even =
        graph.apply(Operator::new("Mul"), &[Some(product), Some(scale)], (ElementType::F32, shape), &label("even"));
    let inputs = vec![Some(even), Some(x.scale)];
    graph.append(Node { operator: Operator::new("Mul"), inputs, outputs: vec![Some(output)] });
    Ok(())
}

/// A 1 that is computed at run time. ONNX Runtime fuses an integer product, its cast and its scale only if the scale is
/// itself a product, and it would fold a product of two constants first.
fn unit(graph: &mut Graph) -> ValueId {
    let inputs = [graph.inputs.first().copied()];
    let size = graph.apply(Operator::new("Size"), &inputs, (ElementType::I64, Vec::new()), "unit.size");
    let sign = graph.apply(Operator::new("Sign"), &[Some(size)], (ElementType::I64, Vec::new()), "unit.sign");
    graph.apply(Operator::cast(ElementType::F32), &[Some(sign)], (ElementType::F32, Vec::new()), "unit")
}

/// Quantises a weight `(inputs, outputs)` to 8-bit integers; returns the levels and one scale per output.
fn quantise_weight(weight: &Array) -> (Vec<u8>, Vec<f32>) {
    let width = weight.dims()[1];
    let mut scales = vec![0.0f32; width];
    for row in weight.values().chunks_exact(width) {
        scales.iter_mut().zip(row).for_each(|(scale, value)| *scale = scale.max(value.abs()));
    }
    // A column of zeros can have any positive scale.
    scales.iter_mut().for_each(|scale| *scale = if *scale > 0.0 { *scale / 127.0 } else { 1.0 });
    let rounded = |(value, scale): (&f32, &f32)| (value / scale).round().clamp(-127.0, 127.0) as i8;
    let levels = weight.values().chunks_exact(width).flat_map(|row| row.iter().zip(&scales).map(rounded));
    (levels.map(|level| level.to_le_bytes()[0]).collect(), scales)
}
