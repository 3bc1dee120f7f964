//! Operations that compute.

use laps_model::Result;
use laps_model::{array::Array, dim::Dim, tensor::Tensor};

use super::{
    Attribute, Element, Operator, Value,
    shapes::{broadcast, refused, with_axis},
};

/// Broadcasts both and applies `operator` to each pair.
pub(super) fn binary(
    (operator, label): (&'static str, &'static str),
    left: &Value,
    right: &Value,
    eager: fn(&Array, &Array) -> Result<Array>,
) -> Result<Value> {
    let shape = broadcast(label, &left.shape(), &right.shape())?;
    left.float((Operator::new(operator), label), &[left, right], shape, |known| eager(&known[0], &known[1]))
}

pub(super) fn affine(x: &Value, scale: f64, shift: f64) -> Result<Value> {
    if x.known().is_some() {
        let operator = Operator::new("affine")
            .with("scale", Attribute::Float(scale as f32))
            .with("shift", Attribute::Float(shift as f32));
        return x.float((operator, "affine"), &[x], x.shape(), |known| known[0].affine(scale, shift));
    }
    let mut result = x.clone();
    if scale != 1.0 {
        result = result.mul(&x.number(scale)?)?;
    }
    if shift != 0.0 {
        result = result.add(&x.number(shift)?)?;
    }
    Ok(result)
}

/// `(..., m, k)` by `(..., k, n)`.
pub(super) fn matmul(left: &Value, right: &Value, label: &str) -> Result<Value> {
    let (a, b) = (left.shape(), right.shape());
    let ([first @ .., rows, inner], [second @ .., other, columns]) = (&a[..], &b[..]) else {
        return refused("matmul", "matrices", (left, right));
    };
    if inner != other {
        return refused("matmul", "an inner size that is the same", (left, right));
    }
    let mut shape = broadcast("matmul", first, second)?;
    shape.extend([rows, columns]);
    left.float((Operator::new("MatMul"), label), &[left, right], shape, |known| known[0].matmul(&known[1]))
}

/// The values are named after the layer: its product `LAYER.matmul`, and with its bias `LAYER`.
pub(super) fn linear(x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
    let [out, inner] = weight.sizes()?;
    if x.shape().last() != Some(&inner) || bias.is_some_and(|bias| bias.shape() != [out]) {
        return refused("linear", "an input, weight and bias that fit", (x, weight, bias));
    }
    let name = weight.fact().name;
    let layer = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
    let transposed = weight.permute(&[1, 0])?;
    x.module(&layer, || {
        let product = matmul(x, &transposed, "matmul")?;
        match bias {
            Some(bias) => binary(("Add", "output"), &product, bias, Array::add),
            None => Ok(product),
        }
    })
}

/// Rows of a table.
pub(super) fn embedding(table: &Value, identifiers: &Value) -> Result<Value> {
    let [_, width] = table.sizes()?;
    let shape = [&identifiers.shape()[..], &[width]].concat();
    let name = table.fact().name;
    let layer = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
    table.module(&layer, || {
        let identifiers = identifiers.cast(Element::I64);
        let operator = Operator::new("Gather").with_int("axis", 0);
        Ok(table.apply(operator, &[table, &identifiers], (Element::F32, shape), "rows"))
    })
}

pub(super) fn layer_norm(x: &Value, (weight, bias): (&Value, &Value), epsilon: f64) -> Result<Value> {
    let width: &[Dim] = &x.shape().last().copied().into_iter().collect::<Vec<_>>();
    if weight.shape() != width || bias.shape() != width {
        return refused("layer_norm", "a weight and bias of the last axis", (x, weight, bias));
    }
    let name = weight.fact().name;
    let layer = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
    let operator =
        Operator::new("LayerNormalization").with_int("axis", -1).with("epsilon", Attribute::Float(epsilon as f32));
    x.module(&layer, || {
        x.float((operator, "output"), &[x, weight, bias], x.shape(), |known| {
            known[0].layer_norm(&known[1], &known[2], epsilon)
        })
    })
}

/// Folds `axis` to size 1.
pub(super) fn reduce(
    (operator, label): (&'static str, &'static str),
    x: &Value,
    axis: usize,
    eager: fn(&Array, usize) -> Result<Array>,
) -> Result<Value> {
    let shape = with_axis(label, &x.shape(), axis, 1.into())?;
    if let Some(known) = x.known() {
        let operator = Operator::new(operator).with_int("axis", axis as i64);
        return x.folded(&operator, &[x], label, || eager(&known, axis));
    }
    let axes = x.whole(&[axis as i64]);
    Ok(x.apply(Operator::new(operator).with_int("keepdims", 1), &[x, &axes], (Element::F32, shape), label))
}

pub(super) fn normalize(x: &Value, epsilon: f64) -> Result<Value> {
    let Some(axis) = x.shape().len().checked_sub(1) else { return refused("normalize", "an axis", x) };
    let norm = reduce(("ReduceL2", "norm"), x, axis, |array, axis| {
        let squares = array.mul(array)?.sum(axis)?;
        Array::new(squares.dims(), squares.values().iter().map(|square| square.sqrt()).collect())
    })?;
    let bounded =
        norm.apply(Operator::new("Max"), &[&norm, &x.number(epsilon)?], (Element::F32, norm.shape()), "bounded_norm");
    binary(("Div", "normalized"), x, &bounded, Array::div)
}

/// Ones scattered to the places of the largest into zeros: exactly `count` of each row, whatever is tied.
pub(super) fn top_mask(x: &Value, count: usize) -> Result<Value> {
    let shape = x.shape();
    let size = shape.last().map_or(Ok(0), |size| size.fixed())?;
    if count > size {
        return refused("top_mask", &format!("at most {size} entries"), count);
    }
    let top = with_axis("top_mask", &shape, shape.len() - 1, count.into())?;
    let places = {
        let mut graph = x.graph.borrow_mut();
        let wanted = graph.label("top.indices");
        let label = graph.label("top");
        let count = graph.whole(&label, &[count as i64]);
        let values = graph.value(&label, Element::F32, top.clone());
        let places = graph.value(&wanted, Element::I64, top.clone());
        let operator = Operator::new("TopK").with_int("axis", -1).with_int("largest", 1).with_int("sorted", 1);
        let inputs = vec![Some(x.id), Some(count)];
        graph.append(super::Node { operator, inputs, outputs: vec![Some(values), Some(places)] });
        (x.at(values), x.at(places))
    };
    let (values, places) = places;
    let zeros = x.affine(0.0, 0.0)?;
    let ones = values.affine(0.0, 1.0)?;
    let operator = Operator::new("ScatterElements").with_int("axis", -1);
    Ok(x.apply(operator, &[&zeros, &places, &ones], (Element::F32, shape), "kept"))
}
