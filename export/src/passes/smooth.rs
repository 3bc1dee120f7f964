//! Channels that are larger than others, taken over by weights.
//!
//! Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023.

use std::{
    collections::{HashMap, HashSet},
    iter,
};

use laps_model::Result;
use laps_model::array::Array;

use super::int8::{Product, product};
use crate::graph::{Domain, Element, Fact, Graph, Id, Node, Operator};

/// A norm whose result products with constant matrices take, as it is or with its tokens moved.
struct Norm {
    /// Place of the node.
    place: usize,
    output: Id,
    /// Places of its weight and its bias among the operands.
    parameters: [usize; 2],
    width: usize,
    /// Places of the products.
    products: Vec<usize>,
    /// Places of what else takes the result.
    others: Vec<usize>,
}

/// Makes of `graph` one whose only output is the largest magnitude in each channel of each norm that [`smooth`] changes,
/// one norm behind the other. Whether there is one.
pub fn channels(graph: &mut Graph) -> bool {
    let nodes = graph.take_nodes();
    let norms = norms(graph, &nodes);
    nodes.into_iter().for_each(|node| graph.append(node));
    let mut parts = Vec::with_capacity(norms.len());
    for norm in &norms {
        let Fact { name, shape, .. } = graph.fact(norm.output).clone();
        let label = |end: &str| format!("{name}.{end}");
        let inputs = [Some(norm.output)];
        let sizes = graph.apply(Operator::new("Abs"), &inputs, (Element::F32, shape.clone()), &label("sizes"));
        let tokens: Vec<i64> = (0..shape.len() as i64 - 1).collect();
        let axes = graph.whole(&label("tokens"), &tokens);
        let reduce = Operator::new("ReduceMax").with_int("keepdims", 0);
        let channels = (Element::F32, vec![norm.width.into()]);
        parts.push(Some(graph.apply(reduce, &[Some(sizes), Some(axes)], channels, &label("channels"))));
    }
    let all: usize = norms.iter().map(|norm| norm.width).sum();
    let concatenate = Operator::new("Concat").with_int("axis", 0);
    if !parts.is_empty() {
        graph.outputs = vec![graph.apply(concatenate, &parts, (Element::F32, vec![all.into()]), "channels")];
    }
    !parts.is_empty()
}

/// Divides each channel of a norm that products take by a number, and multiplies the weights of those products by it: the
/// graph computes the same, and 8 bits suffice for operands whose channels are more alike. The number is the root of the
/// largest magnitude in that channel, over that of the weights for it. `largest` has the former, as
/// [`channels`] finds them; all are taken to be the same where it is empty.
///
/// # Errors
/// None but those of [`Array::new`], which a graph that was recorded does not bring about.
pub fn smooth(graph: &mut Graph, largest: &[f32]) -> Result<()> {
    let mut nodes = graph.take_nodes();
    let mut rest = largest.iter().copied().chain(iter::repeat(1.0));
    let mut restored: HashMap<usize, Node> = HashMap::new();
    for norm in norms(graph, &nodes) {
        let largest: Vec<f32> = rest.by_ref().take(norm.width).collect();
        let products: Vec<(usize, Product)> =
            norm.products.iter().filter_map(|&place| Some((place, product(graph, &nodes[place])?))).collect();
        let numbers = balance(&largest, &products);
        for place in norm.parameters {
            let Some(id) = &mut nodes[norm.place].inputs[place] else { continue };
            let divided = |values: &[f32]| values.iter().zip(&numbers).map(|(value, number)| value / number).collect();
            *id = changed(graph, *id, divided)?;
        }
        for (place, product) in products {
            let columns = product.values.dims()[1].max(1);
            let weight = changed(graph, product.weight, |values| {
                let rows = values.chunks_exact(columns).zip(&numbers);
                rows.flat_map(|(row, number)| row.iter().map(move |value| value * number)).collect()
            })?;
            nodes[place].inputs[1] = Some(weight);
        }
        if !norm.others.is_empty() {
            let Fact { name, element, shape, .. } = graph.fact(norm.output).clone();
            let numbers = graph.array(&format!("{name}.smoothed"), Array::new(&[norm.width], numbers)?);
            let whole = graph.value(&format!("{name}.restored"), element, shape);
            let inputs = vec![Some(norm.output), Some(numbers)];
            restored.insert(norm.place, Node { operator: Operator::new("Mul"), inputs, outputs: vec![Some(whole)] });
            for other in norm.others {
                let inputs = nodes[other].inputs.iter_mut().filter(|input| **input == Some(norm.output));
                inputs.for_each(|input| *input = Some(whole));
            }
        }
    }
    for (place, node) in nodes.into_iter().enumerate() {
        graph.append(node);
        restored.remove(&place).into_iter().for_each(|node| graph.append(node));
    }
    Ok(())
}

/// For each channel what it is divided by.
fn balance(largest: &[f32], products: &[(usize, Product)]) -> Vec<f32> {
    let mut weights = vec![0.0f32; largest.len()];
    for (_, product) in products {
        let columns = product.values.dims()[1].max(1);
        for (size, row) in weights.iter_mut().zip(product.values.values().chunks_exact(columns)) {
            *size = row.iter().fold(*size, |size, value| size.max(value.abs()));
        }
    }
    even(largest, &weights)
}

/// The roots of the largest magnitudes of channels over those of their weights. They are 1 in the mean of their logarithms,
/// and none is beyond what both sides bear in single precision.
fn even(largest: &[f32], weights: &[f32]) -> Vec<f32> {
    // What is no number counts as little; what has no end spoils its own channel and no other.
    let bounded = |size: f32| size.max(0.0).clamp(1e-5, 1e5);
    let ratios: Vec<f32> =
        largest.iter().zip(weights).map(|(&channel, &weight)| (bounded(channel) / bounded(weight)).sqrt()).collect();
    let logarithms: f32 = ratios.iter().map(|ratio| ratio.ln()).sum();
    let mean = (logarithms / ratios.len().max(1) as f32).exp();
    ratios.into_iter().map(|ratio| (ratio / mean).clamp(1e-2, 1e2)).collect()
}

/// The constant `id` with other values.
fn changed(graph: &mut Graph, id: Id, change: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<Id> {
    let fact = graph.fact(id).clone();
    let Some(known) = fact.known() else { return Ok(id) };
    let values = Array::new(known.dims(), change(known.values()))?;
    Ok(graph.array(&format!("{}.smoothed", fact.name), values))
}

/// In the order of the nodes.
fn norms(graph: &Graph, nodes: &[Node]) -> Vec<Norm> {
    let mut takers: HashMap<Id, Vec<usize>> = HashMap::new();
    for (place, node) in nodes.iter().enumerate() {
        let operands: HashSet<Id> = node.inputs.iter().flatten().copied().collect();
        operands.into_iter().for_each(|id| takers.entry(id).or_default().push(place));
    }
    let mut found = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let parameters = match (node.operator.domain, node.operator.name) {
            (Domain::Onnx, "LayerNormalization") => [1, 2],
            (Domain::Microsoft, "SkipLayerNormalization") => [2, 3],
            _ => continue,
        };
        let known =
            parameters.iter().all(|&place| node.input(place).is_some_and(|id| graph.fact(id).known().is_some()));
        let Some(output) = node.output().filter(|id| known && !graph.outputs.contains(id)) else { continue };
        let Some(width) = graph.fact(output).shape.last().and_then(|width| width.fixed().ok()) else { continue };
        let mut norm = Norm { place, output, parameters, width, products: Vec::new(), others: Vec::new() };
        for &taker in takers.get(&output).into_iter().flatten() {
            let mut products = Vec::new();
            if follow(graph, nodes, &takers, (output, taker), &mut products) {
                norm.products.extend(products);
            } else {
                norm.others.push(taker);
            }
        }
        if !norm.products.is_empty() {
            found.push(norm);
        }
    }
    found
}

/// Whether the node at `taker` is a product of the value `id`, or moves its tokens for nothing but products, which are
/// collected.
fn follow(
    graph: &Graph,
    nodes: &[Node],
    takers: &HashMap<Id, Vec<usize>>,
    (id, taker): (Id, usize),
    products: &mut Vec<usize>,
) -> bool {
    let node = &nodes[taker];
    if node.input(0) != Some(id) {
        return false;
    }
    if product(graph, node).is_some() {
        products.push(taker);
        return true;
    }
    let Some(output) = node.output().filter(|output| moves(graph, node, (id, *output))) else { return false };
    let behind = takers.get(&output).map(Vec::as_slice).unwrap_or_default();
    !behind.is_empty()
        && !graph.outputs.contains(&output)
        && behind.iter().all(|&taker| follow(graph, nodes, takers, (output, taker), products))
}

/// Whether a node leaves each token whole.
fn moves(graph: &Graph, node: &Node, (from, to): (Id, Id)) -> bool {
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
    use super::even;

    #[test]
    fn channels_and_weights_share_what_is_uneven() {
        // Roots of 4 / 1, 1 / 1 and 1 / 4, whose logarithms are 0 in the mean.
        let numbers = even(&[4.0, 1.0, 1.0], &[1.0, 1.0, 4.0]);
        assert!(numbers.iter().zip([2.0, 1.0, 0.5]).all(|(found, expected)| (found - expected).abs() < 1e-6));
        for odd in [f32::NAN, f32::INFINITY, 0.0, 1e-40] {
            for numbers in [even(&[odd, 1.0], &[1.0, 1.0]), even(&[1.0, 1.0], &[1.0, odd])] {
                assert!(numbers.iter().all(|number| (1e-2..=1e2).contains(number)), "{odd}: {numbers:?}");
            }
        }
    }
}
