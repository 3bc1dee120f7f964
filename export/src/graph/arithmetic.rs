//! Recording of arithmetic, matrix products, norms and reductions.

use laps_model::Result;
use laps_model::{array::Array, dim::Dim, tensor::Tensor};

use super::{
    Attribute, ElementType, GraphTensor, Operator,
    shapes::{broadcast, refused, with_axis},
};

/// Records an element-wise operator on two operands that broadcast.
pub(super) fn binary(
    (operator, label): (&'static str, &'static str),
    left: &GraphTensor,
    right: &GraphTensor,
    compute: fn(&Array, &Array) -> Result<Array>,
) -> Result<GraphTensor> {
    let shape = broadcast(label, &left.shape(), &right.shape())?;
    left.float((Operator::new(operator), label), &[left, right], shape, |known| compute(&known[0], &known[1]))
}

pub(super) fn affine(x: &GraphTensor, scale: f64, shift: f64) -> Result<GraphTensor> {
    if x.constant_array().is_some() {
        let operator = Operator::new("affine")
            .with("scale", Attribute::Float(scale as f32))
            .with("shift", Attribute::Float(shift as f32));
        return x.float((operator, "affine"), &[x], x.shape(), |known| known[0].affine(scale, shift));
    }
    let mut result = x.clone();
    if scale != 1.0 {
        result = result.mul(&x.f32_scalar(scale)?)?;
    }
    if shift != 0.0 {
        result = result.add(&x.f32_scalar(shift)?)?;
    }
    Ok(result)
}

/// Matrix product of `(..., m, k)` and `(..., k, n)`.
pub(super) fn matmul(left: &GraphTensor, right: &GraphTensor, label: &str) -> Result<GraphTensor> {
    let (a, b) = (left.shape(), right.shape());
    let ([first @ .., rows, inner], [second @ .., other, columns]) = (&a[..], &b[..]) else {
        return refused("matmul", "matrices", (left, right));
    };
    if inner != other {
        return refused("matmul", "equal inner sizes", (left, right));
    }
    let mut shape = broadcast("matmul", first, second)?;
    shape.extend([rows, columns]);
    left.float((Operator::new("MatMul"), label), &[left, right], shape, |known| known[0].matmul(&known[1]))
}

/// Products of each matrix of `(b, m, k)` with each of `(a, k, n)`, or of the matrices of `(a, b, m, k)` with the one of their
/// `a`: the operator broadcasts without copies.
pub(super) fn matmul_broadcast(left: &GraphTensor, right: &GraphTensor) -> Result<GraphTensor> {
    let [outer, inner, columns] = right.sizes()?;
    matmul(left, &right.reshape(&[outer, 1.into(), inner, columns])?, "matmul")
}

/// Linear layer. Its values are named after the layer: the product `LAYER.matmul`, and with a bias `LAYER.output`.
pub(super) fn linear(x: &GraphTensor, weight: &GraphTensor, bias: Option<&GraphTensor>) -> Result<GraphTensor> {
    let [out, inner] = weight.sizes()?;
    if x.shape().last() != Some(&inner) || bias.is_some_and(|bias| bias.shape() != [out]) {
        return refused("linear", "an input, weight and bias with matching sizes", (x, weight, bias));
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

/// Embedding lookup: rows of `table` by `input_ids`.
pub(super) fn embedding(table: &GraphTensor, input_ids: &GraphTensor) -> Result<GraphTensor> {
    let [_, width] = table.sizes()?;
    let shape = [&input_ids.shape()[..], &[width]].concat();
    let name = table.fact().name;
    let layer = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
    table.module(&layer, || {
        let input_ids = input_ids.cast(ElementType::I64);
        let operator = Operator::new("Gather").with_int("axis", 0);
        Ok(table.apply(operator, &[table, &input_ids], (ElementType::F32, shape), "rows"))
    })
}

pub(super) fn layer_norm(x: &GraphTensor, weight: &GraphTensor, bias: &GraphTensor, eps: f64) -> Result<GraphTensor> {
    let width: &[Dim] = &x.shape().last().copied().into_iter().collect::<Vec<_>>();
    if weight.shape() != width || bias.shape() != width {
        return refused("layer_norm", "a weight and bias of the size of the last axis", (x, weight, bias));
    }
    let name = weight.fact().name;
    let layer = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
    let operator =
        Operator::new("LayerNormalization").with_int("axis", -1).with("epsilon", Attribute::Float(eps as f32));
    x.module(&layer, || {
        x.float((operator, "output"), &[x, weight, bias], x.shape(), |known| {
            known[0].layer_norm(&known[1], &known[2], eps)
        })
    })
}

/// Records a reduction that keeps `axis` with size 1.
pub(super) fn reduce(
    (operator, label): (&'static str, &'static str),
    x: &GraphTensor,
    axis: usize,
    compute: fn(&Array, usize) -> Result<Array>,
) -> Result<GraphTensor> {
    let shape = with_axis(label, &x.shape(), axis, 1.into())?;
    if let Some(known) = x.constant_array() {
        let operator = Operator::new(operator).with_int("axis", axis as i64);
        return x.folded(&operator, &[x], label, || compute(&known, axis));
    }
    let axes = x.i64_vector(&[axis as i64]);
    Ok(x.apply(Operator::new(operator).with_int("keepdims", 1), &[x, &axes], (ElementType::F32, shape), label))
}

/// L2 normalisation along the last axis, with norms below `eps` raised to `eps`.
pub(super) fn normalize(x: &GraphTensor, eps: f64) -> Result<GraphTensor> {
    let Some(axis) = x.shape().len().checked_sub(1) else { return refused("normalize", "an axis", x) };
    let norm = reduce(("ReduceL2", "norm"), x, axis, |array, axis| {
        let squares = array.mul(array)?.sum(axis)?;
        Array::new(squares.dims(), squares.values().iter().map(|square| square.sqrt()).collect())
    })?;
    let bounded = norm.apply(
        Operator::new("Max"),
        &[&norm, &x.f32_scalar(eps)?],
        (ElementType::F32, norm.shape()),
        "bounded_norm",
    );
    binary(("Div", "normalized"), x, &bounded, Array::div)
}

/// Mask of the `count` largest entries of each row. `ScatterElements` writes ones at the indices of `TopK`, so that ties
/// never select more than `count` entries.
pub(super) fn top_k_mask(x: &GraphTensor, count: usize) -> Result<GraphTensor> {
    let shape = x.shape();
    let size = shape.last().map_or(Ok(0), |size| size.fixed())?;
    if count > size {
        return refused("top_k_mask", &format!("at most {size} entries"), count);
    }
    let top = with_axis("top_k_mask", &shape, shape.len() - 1, count.into())?;
    let (values, indices) = {
        let mut graph = x.graph.borrow_mut();
        let indices_label = graph.label("top.indices");
        let label = graph.label("top");
        let count = graph.i64_vector(&label, &[count as i64]);
        let values = graph.value(&label, ElementType::F32, top.clone());
        let indices = graph.value(&indices_label, ElementType::I64, top.clone());
        let operator = Operator::new("TopK").with_int("axis", -1).with_int("largest", 1).with_int("sorted", 1);
        let inputs = vec![Some(x.id), Some(count)];
        graph.append(super::Node { operator, inputs, outputs: vec![Some(values), Some(indices)] });
        (x.at(values), x.at(indices))
    };
    let zeros = x.affine(0.0, 0.0)?;
    let ones = values.affine(0.0, 1.0)?;
    let operator = Operator::new("ScatterElements").with_int("axis", -1);
    Ok(x.apply(operator, &[&zeros, &indices, &ones], (ElementType::F32, shape), "kept"))
}

/// Each line along `axis`, in descending order. The number of values of `TopK` is an operand, which is computed from the shape
/// if the size is a symbol.
pub(super) fn sort_descending(x: &GraphTensor, axis: usize) -> Result<GraphTensor> {
    let shape = x.shape();
    let Some(size) = shape.get(axis) else { return refused("sort_descending", &format!("an axis {axis}"), x) };
    let count = match size.fixed() {
        Ok(size) => x.i64_vector(&[size as i64]),
        Err(_) => {
            let end = axis as i64 + 1;
            let operator = Operator::new("Shape").with_int("start", axis as i64).with_int("end", end);
            x.apply(operator, &[x], (ElementType::I64, vec![1.into()]), "sorted.count")
        }
    };
    let mut graph = x.graph.borrow_mut();
    let label = graph.label("sorted");
    let values = graph.value(&label, ElementType::F32, shape.clone());
    let indices_label = graph.label("sorted.indices");
    let indices = graph.value(&indices_label, ElementType::I64, shape);
    let operator = Operator::new("TopK").with_int("axis", axis as i64).with_int("largest", 1).with_int("sorted", 1);
    let (inputs, outputs) = (vec![Some(x.id), Some(count.id)], vec![Some(values), Some(indices)]);
    graph.append(super::Node { operator, inputs, outputs });
    drop(graph);
    Ok(x.at(values))
}
