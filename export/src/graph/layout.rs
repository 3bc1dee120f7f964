//! Operations that move values and change none.

use laps_model::Result;
use laps_model::{array::Array, dim::Dim, tensor::Tensor};

use super::{
    Attribute, Element, Id, Node, Operator, Value,
    shapes::{broadcast, elements, refused, reshape as sizes, with_axis},
};

/// The operand of the node that makes `x`, if that is the operator `name`.
fn source(x: &Value, name: &str) -> Option<(Value, Node)> {
    let graph = x.graph.borrow();
    let node = graph.producer(x.id).filter(|node| node.is(name))?;
    Some((x.at(node.input(0)?), node.clone()))
}

/// Reshapes that follow one another become one; a reshape to the same shape is none.
pub(super) fn reshape(x: &Value, shape: &[Dim]) -> Result<Value> {
    let from = x.shape();
    if from == shape {
        return Ok(x.clone());
    }
    if elements(&from) != elements(shape) {
        return refused("reshape", "as many elements", (x, shape));
    }
    if let Some(known) = x.known() {
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

fn reshaped(x: &Value, order: &[i64], shape: &[Dim]) -> Value {
    let element = x.fact().element;
    let order = x.whole(order);
    x.apply(Operator::new("Reshape"), &[x, &order], (element, shape.to_vec()), "reshape")
}

/// Permutations that follow one another become one; one that changes nothing is none.
pub(super) fn permute(x: &Value, order: &[usize]) -> Result<Value> {
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
    if let Some(known) = x.known() {
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

pub(super) fn narrow(x: &Value, axis: usize, start: usize, length: usize) -> Result<Value> {
    let shape = x.shape();
    let narrowed = with_axis("narrow", &shape, axis, length.into())?;
    let size = shape[axis].fixed()?;
    if start + length > size {
        return refused("narrow", &format!("at most {size} entries"), (start, length));
    }
    if length == size {
        return Ok(x.clone());
    }
    if let Some(known) = x.known() {
        let numbers = [axis, start, length].map(|number| number as i64).to_vec();
        let operator = Operator::new("Slice").with("range", Attribute::Ints(numbers));
        return x.folded(&operator, &[x], "part", || known.narrow(axis, start, length));
    }
    Ok(slice(x, &[(axis, start, start + length)], narrowed))
}

/// Entries from and before given ones along some axes.
fn slice(x: &Value, ranges: &[(usize, usize, usize)], shape: Vec<Dim>) -> Value {
    let numbers = |pick: fn(&(usize, usize, usize)) -> usize| {
        x.whole(&ranges.iter().map(|range| pick(range) as i64).collect::<Vec<_>>())
    };
    let [axes, starts, ends] = [numbers(|range| range.0), numbers(|range| range.1), numbers(|range| range.2)];
    x.apply(Operator::new("Slice"), &[x, &starts, &ends, &axes], (x.fact().element, shape), "part")
}

pub(super) fn select(x: &Value, axis: usize, indices: &[usize]) -> Result<Value> {
    let selected = with_axis("select", &x.shape(), axis, indices.len().into())?;
    let size = x.shape()[axis].fixed()?;
    if indices.iter().any(|&index| index >= size) {
        return refused("select", &format!("entries below {size}"), indices);
    }
    let indices_64: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
    if let Some(known) = x.known() {
        let operator =
            Operator::new("Gather").with_int("axis", axis as i64).with("indices", Attribute::Ints(indices_64));
        return x.folded(&operator, &[x], "selected", || known.select(axis, indices));
    }
    let places = x.whole(&indices_64);
    let operator = Operator::new("Gather").with_int("axis", axis as i64);
    Ok(x.apply(operator, &[x, &places], (x.fact().element, selected), "selected"))
}

/// A selection in another order: one copy, where two slices that are joined would be two.
pub(super) fn roll(x: &Value, axis: usize, shift: usize) -> Result<Value> {
    let Some(size) = x.shape().get(axis).copied() else { return refused("roll", &format!("an axis {axis}"), x) };
    let size = size.fixed()?;
    if size == 0 || shift.is_multiple_of(size) {
        return Ok(x.clone());
    }
    select(x, axis, &(0..size).map(|place| (place + shift) % size).collect::<Vec<_>>())
}

pub(super) fn concatenate(parts: &[&Value], axis: usize) -> Result<Value> {
    let Some(&first) = parts.first() else { return refused("concatenate", "at least one part", parts) };
    if parts.len() == 1 {
        return Ok(first.clone());
    }
    let mut total = 0;
    for part in parts {
        let Some(size) = part.shape().get(axis).copied() else { return refused("concatenate", "an axis", part) };
        total += size.fixed()?;
    }
    let joined = with_axis("concatenate", &first.shape(), axis, total.into())?;
    for part in parts {
        if with_axis("concatenate", &part.shape(), axis, total.into())? != joined {
            return refused("concatenate", "parts that differ on one axis only", parts);
        }
    }
    let operator = Operator::new("Concat").with_int("axis", axis as i64);
    first
        .float((operator, "joined"), parts, joined, |known| Array::concatenate(&known.iter().collect::<Vec<_>>(), axis))
}

/// Adds zeros of the wanted shape. Those of a symbol are made of the input that has it, so that no node computes with
/// shapes: where that input is not finite, neither is the result.
pub(super) fn expand(x: &Value, shape: &[Dim]) -> Result<Value> {
    let from = x.shape();
    if broadcast("expand", &from, shape)? != shape {
        return refused("expand", "a shape that this broadcasts to", (x, shape));
    }
    if from == shape {
        return Ok(x.clone());
    }
    let fixed: Result<Vec<usize>> = shape.iter().map(|size| size.fixed()).collect();
    if let (Some(known), Ok(sizes)) = (x.known(), fixed) {
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
            (1, Some(symbol)) => zeros(x, symbol)?.reshape(&outline)?,
            (count, None) => {
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

/// Zeros, as many as `symbol`, from the first entries of the input that has it.
fn zeros(x: &Value, symbol: &'static str) -> Result<Value> {
    let found: Option<(Id, usize)> = x.graph.borrow().symbol(symbol);
    let Some((id, axis)) = found else { return refused("expand", "a symbol of an input", symbol) };
    let input = x.at(id).cast(Element::F32);
    let mut shape = input.shape();
    let ranges: Vec<_> = (0..shape.len()).filter(|&other| other != axis).map(|other| (other, 0, 1)).collect();
    for &(other, ..) in &ranges {
        shape[other] = 1.into();
    }
    let first = if ranges.is_empty() { input } else { slice(&input, &ranges, shape) };
    first.affine(0.0, 0.0)
}
