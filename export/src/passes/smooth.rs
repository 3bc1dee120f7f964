//! Moves large channel magnitudes from activations into weights.
//!
//! Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023.

use std::{
    collections::{HashMap, HashSet},
    iter,
};

use laps_model::Result;
use laps_model::array::Array;

use super::int8::{WeightProduct, product};
use crate::graph::{Domain, ElementType, Fact, Graph, Node, Operator, ValueId};

/// A norm that feeds products with constant matrices, directly or through nodes that only reorder tokens.
struct Norm {
    /// Index of the node.
    index: usize,
    output: ValueId,
    /// QuantisedOperand positions of weight and bias.
    parameters: [usize; 2],
    width: usize,
    /// Node indices of the products.
    products: Vec<usize>,
    /// Node indices of the other consumers of the result.
    others: Vec<usize>,
}

/// Replaces the outputs of `graph` by a single one: the largest magnitude in each channel of every norm that [`smooth`]
/// rescales, concatenated. Returns false if there is no such norm.
pub fn channels(graph: &mut Graph) -> bool {
    let nodes = graph.take_nodes();
    let norms = norms(graph, &nodes);
    nodes.into_iter().for_each(|node| graph.append(node));
    let mut parts = Vec::with_capacity(norms.len());
    for norm in &norms {
        let Fact { name, shape, .. } = graph.fact(norm.output).clone();
        let label = |end: &str| format!("{name}.{end}");
        let inputs = [Some(norm.output)];
        let sizes = graph.apply(Operator::new("Abs"), &inputs, (ElementType::F32, shape.clone()), &label("sizes"));
        let tokens: Vec<i64> = (0..shape.len() as i64 - 1).collect();
        let axes = graph.i64_vector(&label("tokens"), &tokens);
        let reduce = Operator::new("ReduceMax").with_int("keepdims", 0);
        let channels = (ElementType::F32, vec![norm.width.into()]);
        parts.push(Some(graph.apply(reduce, &[Some(sizes), Some(axes)], channels, &label("channels"))));
    }
    let all: usize = norms.iter().map(|norm| norm.width).sum();
    let concat = Operator::new("Concat").with_int("axis", 0);
    if !parts.is_empty() {
        graph.outputs = vec![graph.apply(concat, &parts, (ElementType::F32, vec![all.into()]), "channels")];
    }
    !parts.is_empty()
}

/// SmoothQuant: divides each channel of a norm by a scale and multiplies the weights of the following products by it. The
/// graph computes the same, but the operands have more even channels and lose less in 8 bits. The scale is
/// `sqrt(largest magnitude of the channel / largest magnitude of its weights)`. `largest` holds the channel magnitudes in
/// the order of [`channels`]; if it is empty, all channels count as equal.
///
/// # Errors
/// Those of [`Array::new`], which recorded graphs do not cause.
pub fn smooth(graph: &mut Graph, largest: &[f32]) -> Result<()> {
    let mut nodes = graph.take_nodes();
    let mut rest = largest.iter().copied().chain(iter::repeat(1.0));
    let mut restored: HashMap<usize, Node> = HashMap::new();
    for norm in norms(graph, &nodes) {
        let largest: Vec<f32> = rest.by_ref().take(norm.width).collect();
        let products: Vec<(usize, WeightProduct)> =
            norm.products.iter().filter_map(|&index| Some((index, product(graph, &nodes[index])?))).collect();
        let scales = balance(&largest, &products);
        for position in norm.parameters {
            let Some(id) = &mut nodes[norm.index].inputs[position] else { continue };
            let divided = |values: &[f32]| values.iter().zip(&scales).map(|(value, scale)| value / scale).collect();
            *id = changed(graph, *id, divided)?;
        }
        for (index, product) in products {
            let columns = product.values.dims()[1].max(1);
            let weight = changed(graph, product.weight, |values| {
                let rows = values.chunks_exact(columns).zip(&scales);
                rows.flat_map(|(row, scale)| row.iter().map(move |value| value * scale)).collect()
            })?;
            nodes[index].inputs[1] = Some(weight);
        }
        if !norm.others.is_empty() {
            let Fact { name, element, shape, .. } = graph.fact(norm.output).clone();
            let scales = graph.array(&format!("{name}.smoothed"), Array::new(&[norm.width], scales)?);
            let unscaled = graph.value(&format!("{name}.restored"), element, shape);
            let inputs = vec![Some(norm.output), Some(scales)];
            restored.insert(norm.index, Node { operator: Operator::new("Mul"), inputs, outputs: vec![Some(unscaled)] });
            for other in norm.others {
                let inputs = nodes[other].inputs.iter_mut().filter(|input| **input == Some(norm.output));
                inputs.for_each(|input| *input = Some(unscaled));
            }
        }
    }
    for (index, node) in nodes.into_iter().enumerate() {
        graph.append(node);
        restored.remove(&index).into_iter().for_each(|node| graph.append(node));
    }
    Ok(())
}

/// The scale that each channel is divided by.
fn balance(largest: &[f32], products: &[(usize, WeightProduct)]) -> Vec<f32> {
    let mut weights = vec![0.0f32; largest.len()];
    for (_, product) in products {
        let columns = product.values.dims()[1].max(1);
        for (size, row) in weights.iter_mut().zip(product.values.values().chunks_exact(columns)) {
            *size = row.iter().fold(*size, |size, value| size.max(value.abs()));
        }
    }
    channel_scales(largest, &weights)
}

/// `sqrt(channel / weight)` for the largest magnitudes of channels and of their weights, normalised to a geometric mean of 1
/// and clamped to a range that costs neither side precision in f32.
fn channel_scales(largest: &[f32], weights: &[f32]) -> Vec<f32> {
    // Clamp NaN and infinity so that one bad channel cannot affect the others.
    let bounded = |size: f32| size.max(0.0).clamp(1e-5, 1e5);
    let ratios: Vec<f32> =
        largest.iter().zip(weights).map(|(&channel, &weight)| (bounded(channel) / bounded(weight)).sqrt()).collect();
    let logarithms: f32 = ratios.iter().map(|ratio| ratio.ln()).sum();
    let mean = (logarithms / ratios.len().max(1) as f32).exp();
    ratios.into_iter().map(|ratio| (ratio / mean).clamp(1e-2, 1e2)).collect()
}

/// A copy of the constant `id` with its values replaced.
fn changed(graph: &mut Graph, id: ValueId, change: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<ValueId> {
    let fact = graph.fact(id).clone();
    let Some(known) = fact.constant_array() else { return Ok(id) };
    let values = Array::new(known.dims(), change(known.values()))?;
    Ok(graph.array(&format!("{}.smoothed", fact.name), values))
}

/// The norms to rescale, in node order.
fn norms(graph: &Graph, nodes: &[Node]) -> Vec<Norm> {
    let mut consumers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let operands: HashSet<ValueId> = node.inputs.iter().flatten().copied().collect();
        operands.into_iter().for_each(|id| consumers.entry(id).or_default().push(index));
    }
    let mut found = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let parameters = match (node.operator.domain, node.operator.name) {
            (Domain::Onnx, "LayerNormalization") => [1, 2],
            (Domain::Microsoft, "SkipLayerNormalization") => [2, 3],
            _ => continue,
        };
        let known = parameters
            .iter()
            .all(|&position| node.input(position).is_some_and(|id| graph.fact(id).constant_array().is_some()));
        let Some(output) = node.output().filter(|id| known && !graph.outputs.contains(id)) else { continue };
        let Some(width) = graph.fact(output).shape.last().and_then(|width| width.fixed().ok()) else { continue };
        let mut norm = Norm { index, output, parameters, width, products: Vec::new(), others: Vec::new() };
        for &consumer in consumers.get(&output).into_iter().flatten() {
            let mut products = Vec::new();
            if follow(graph, nodes, &consumers, (output, consumer), &mut products) {
                norm.products.extend(products);
            } else {
                norm.others.push(consumer);
            }
        }
        if !norm.products.is_empty() {
            found.push(norm);
        }
    }
    found
}

/// Returns true if the node at `consumer` is a product of the value `id`, or only reorders its tokens for products. The
/// products are collected.
fn follow(
    graph: &Graph,
    nodes: &[Node],
    consumers: &HashMap<ValueId, Vec<usize>>,
    (id, consumer): (ValueId, usize),
    products: &mut Vec<usize>,
) -> bool {
    let node = &nodes[consumer];
    if node.input(0) != Some(id) {
        return false;
    }
    if product(graph, node).is_some() {
        products.push(consumer);
        return true;
    }
    let Some(output) = node.output().filter(|output| moves(graph, node, (id, *output))) else { return false };
    let next = consumers.get(&output).map(Vec::as_slice).unwrap_or_default();
    !next.is_empty()
        && !graph.outputs.contains(&output)
        && next.iter().all(|&consumer| follow(graph, nodes, consumers, (output, consumer), products))
}

/// Returns true for a node that reorders tokens and leaves the channels of each token unchanged.
fn moves(graph: &Graph, node: &Node, (from, to): (ValueId, ValueId)) -> bool {
    let [before, after] = [from, to].map(|id| &graph.fact(id).shape);
    let last = before.len() as i64 - 1;
    node.operator.domain == Domain::Onnx
        && before.last() == after.last()
        && match node.operator.name {
            "Reshape" => true,
            "Transpose" => node.operator.ints("perm").is_some_and(|order| order.last() == Some(&last)),
            "Gather" => node.operator.int("axis").is_some_and(|axis| axis != last && axis != -1),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::channel_scales;

    #[test]
    fn channel_scales_are_finite_and_have_a_geometric_mean_of_1() {
        // Square roots of 4 / 1, 1 / 1 and 1 / 4, whose geometric mean is 1.
        let scales = channel_scales(&[4.0, 1.0, 1.0], &[1.0, 1.0, 4.0]);
        assert!(scales.iter().zip([2.0, 1.0, 0.5]).all(|(found, expected)| (found - expected).abs() < 1e-6));
        for odd in [f32::NAN, f32::INFINITY, 0.0, 1e-40] {
            for scales in [channel_scales(&[odd, 1.0], &[1.0, 1.0]), channel_scales(&[1.0, 1.0], &[1.0, odd])] {
                assert!(scales.iter().all(|scale| (1e-2..=1e2).contains(scale)), "{odd}: {scales:?}");
            }
        }
    }
}
