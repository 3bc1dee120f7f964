//! Recording of operators that move data: reshape, transpose, slice, gather, concat, expand.

use laps_model::Result;
use laps_model::{array::Array, dim::Dim, tensor::Tensor};

use super::{
    Attribute, ElementType, GraphTensor, Node, Operator, ValueId,
    shapes::{broadcast, elements, refused, reshape as sizes, with_axis},
};

/// The node that computes `x` and its first operand, if the node is the operator `name`.
fn source(x: &GraphTensor, name: &str) -> Option<(GraphTensor, Node)> {
    let graph = x.graph.borrow();
    let node = graph.producer(x.id).filter(|node| node.is(name))?;
    Some((x.at(node.input(0)?), node.clone()))
}

/// Merges consecutive reshapes, and omits a reshape to the same shape.
pub(super) fn reshape(x: &GraphTensor, shape: &[Dim]) -> Result<GraphTensor> {
    let from = x.shape();
    if from == shape {
        return Ok(x.clone());
    }
    if elements(&from) != elements(shape) {
        return refused("reshape", "the same number of elements", (x, shape));
    }
    if let Some(known) = x.constant_array() {
        let order = sizes(&from, shape)?;
        let operator = Operator::new("Reshape").with("shape", Attribute::Ints(order));
        return x.folded(&operator, &[x], "reshaped", || known.reshape(shape));
    }
    if let Some((source, _)) = source(x, "Reshape") {
        if source.shape() == shape {
            return Ok(source);
        }
        if let Ok(order) = sizes(&source.shape(), shape) {
            return Ok(reshaped(&source, &order, shape));
        }
    }
    Ok(reshaped(x, &sizes(&from, shape)?, shape))
}

fn reshaped(x: &GraphTensor, order: &[i64], shape: &[Dim]) -> GraphTensor {
    let element = x.fact().element;
    let order = x.i64_vector(order);
    x.apply(Operator::new("Reshape"), &[x, &order], (element, shape.to_vec()), "reshape")
}

/// Merges consecutive transposes, and omits the identity.
pub(super) fn permute(x: &GraphTensor, order: &[usize]) -> Result<GraphTensor> {
    let shape = x.shape();
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..shape.len()) {
        return refused("permute", &format!("each axis of {shape:?} once"), order);
    }
    if order.iter().copied().eq(0..shape.len()) {
        return Ok(x.clone());
    }
    let axes = |order: &[usize]| Attribute::Ints(order.iter().map(|&axis| axis as i64).collect());
    let operator = Operator::new("Transpose").with("perm", axes(order));
    if let Some(known) = x.constant_array() {
        return x.folded(&operator, &[x], "transposed", || known.permute(order));
    }
    if let Some((source, node)) = source(x, "Transpose") {
        let before: Vec<usize> =
            node.operator.ints("perm").unwrap_or_default().iter().map(|&axis| axis as usize).collect();
        let both: Vec<usize> = order.iter().filter_map(|&axis| before.get(axis).copied()).collect();
        return permute(&source, &both);
    }
    let moved = order.iter().map(|&axis| shape[axis]).collect();
    Ok(x.apply(operator, &[x], (x.fact().element, moved), "transpose"))
}

pub(super) fn narrow(x: &GraphTensor, axis: usize, start: usize, length: usize) -> Result<GraphTensor> {
    let shape = x.shape();
    let narrowed = with_axis("narrow", &shape, axis, length.into())?;
    // Entries that are there for every value of a symbol.
    let size = shape[axis];
    if start + length > size.smallest() {
        return refused("narrow", &format!("at most {} entries of {size}", size.smallest()), (start, length));
    }
    if size == length.into() {
        return Ok(x.clone());
    }
    if let Some(known) = x.constant_array() {
        let numbers = [axis, start, length].map(|number| number as i64).to_vec();
        let operator = Operator::new("Slice").with("range", Attribute::Ints(numbers));
        return x.folded(&operator, &[x], "part", || known.narrow(axis, start, length));
    }
    Ok(slice(x, &[(axis, start, start + length)], narrowed))
}

/// Records a slice; `ranges` holds axis, start and end.
fn slice(x: &GraphTensor, ranges: &[(usize, usize, usize)], shape: Vec<Dim>) -> GraphTensor {
    let numbers = |pick: fn(&(usize, usize, usize)) -> usize| {
        x.i64_vector(&ranges.iter().map(|range| pick(range) as i64).collect::<Vec<_>>())
    };
    let [axes, starts, ends] = [numbers(|range| range.0), numbers(|range| range.1), numbers(|range| range.2)];
    x.apply(Operator::new("Slice"), &[x, &starts, &ends, &axes], (x.fact().element, shape), "part")
}

pub(super) fn select(x: &GraphTensor, axis: usize, indices: &[usize]) -> Result<GraphTensor> {
    let selected = with_axis("select", &x.shape(), axis, indices.len().into())?;
    let size = x.shape()[axis].fixed()?;
    if indices.iter().any(|&index| index >= size) {
        return refused("select", &format!("entries below {size}"), indices);
    }
    let indices_64: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
    if let Some(known) = x.constant_array() {
        let operator =
            Operator::new("Gather").with_int("axis", axis as i64).with("indices", Attribute::Ints(indices_64));
        return x.folded(&operator, &[x], "selected", || known.select(axis, indices));
    }
    let indices = x.i64_vector(&indices_64);
    let operator = Operator::new("Gather").with_int("axis", axis as i64);
    Ok(x.apply(operator, &[x, &indices], (x.fact().element, selected), "selected"))
}

/// Records a roll as one gather, which copies once; two slices and a concat would copy twice.
pub(super) fn roll(x: &GraphTensor, axis: usize, shift: usize) -> Result<GraphTensor> {
    let Some(size) = x.shape().get(axis).copied() else { return refused("roll", &format!("an axis {axis}"), x) };
    let size = size.fixed()?;
    if size == 0 || shift.is_multiple_of(size) {
        return Ok(x.clone());
    }
    select(x, axis, &(0..size).map(|index| (index + shift) % size).collect::<Vec<_>>())
}

pub(super) fn concat(parts: &[&GraphTensor], axis: usize) -> Result<GraphTensor> {
    let Some(&first) = parts.first() else { return refused("concat", "at least one tensor", parts) };
    if parts.len() == 1 {
        return Ok(first.clone());
    }
    let mut total = Dim::from(0);
    for part in parts {
        let Some(size) = part.shape().get(axis).copied() else { return refused("concat", "an axis", part) };
        total = total.plus(size)?;
    }
    let joined = with_axis("concat", &first.shape(), axis, total)?;
    for part in parts {
        if with_axis("concat", &part.shape(), axis, total)? != joined {
            return refused("concat", "tensors that differ on one axis only", parts);
        }
    }
    let operator = Operator::new("Concat").with_int("axis", axis as i64);
    first.float((operator, "joined"), parts, joined, |known| Array::concat(&known.iter().collect::<Vec<_>>(), axis))
}

/// Records an expand as the addition of zeros of the target shape. The zeros of a symbolic size are computed from an input
/// with that size, so that no node computes with shapes. If that input is not finite, the result is not finite either.
pub(super) fn expand(x: &GraphTensor, shape: &[Dim]) -> Result<GraphTensor> {
    let from = x.shape();
    if broadcast("expand", &from, shape)? != shape {
        return refused("expand", "a shape that this broadcasts to", (x, shape));
    }
    if from == shape {
        return Ok(x.clone());
    }
    let fixed: Result<Vec<usize>> = shape.iter().map(|size| size.fixed()).collect();
    if let (Some(known), Ok(sizes)) = (x.constant_array(), fixed) {
        let sizes = sizes.iter().map(|&size| size as i64).collect();
        let operator = Operator::new("Expand").with("shape", Attribute::Ints(sizes));
        return x.folded(&operator, &[x], "expanded", || known.expand(shape));
    }
    let mut result = x.clone();
    let offset = shape.len() - from.len();
    for (axis, &size) in shape.iter().enumerate() {
        if axis >= offset && from[axis - offset] == size {
            continue;
        }
        let mut outline = vec![Dim::from(1); shape.len()];
        outline[axis] = size;
        let zeros = match size.parts() {
            Some((1, Some(symbol))) => zeros(x, symbol)?.reshape(&outline)?,
            Some((count, None)) => {
                let mut sizes = vec![1; shape.len()];
                sizes[axis] = count;
                x.constant(&vec![0.0; count], &sizes)?
            }
            _ => return refused("expand", "a size that is a symbol or a number", shape),
        };
        result = result.add(&zeros)?;
    }
    Ok(result)
}

/// Zeros of the symbolic size `symbol`, computed from the first entries of an input with that size.
fn zeros(x: &GraphTensor, symbol: &'static str) -> Result<GraphTensor> {
    let found: Option<(ValueId, usize)> = x.graph.borrow().symbol(symbol);
    let Some((id, axis)) = found else { return refused("expand", "a symbol of an input", symbol) };
    let input = x.at(id).cast(ElementType::F32);
    let mut shape = input.shape();
    let ranges: Vec<_> = (0..shape.len()).filter(|&other| other != axis).map(|other| (other, 0, 1)).collect();
    for &(other, ..) in &ranges {
        shape[other] = 1.into();
    }
    let first = if ranges.is_empty() { input } else { slice(&input, &ranges, shape) };
    first.affine(0.0, 0.0)
}
