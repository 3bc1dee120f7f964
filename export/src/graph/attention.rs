//! Attention, as single operations or as one of ONNX Runtime's.

use laps_model::Result;
use laps_model::{array::Array, dim::Dim, tensor::Tensor};

use super::{Attribute, Element, Flavour, Operator, Value, arithmetic};

/// The bias itself; which mask it was made of is kept, since the fused operator takes the mask.
pub(super) fn padding_bias(mask: &Value) -> Result<Value> {
    let [batch, length] = mask.sizes()?;
    let bias = mask.affine(laps_model::tensor::PADDING, -laps_model::tensor::PADDING)?.reshape(&[
        batch,
        1.into(),
        1.into(),
        length,
    ])?;
    mask.graph.borrow_mut().paddings.insert(bias.id, mask.id);
    Ok(bias)
}

/// `(batch, heads, length, size)` thrice to the same.
pub(super) fn attention(query: &Value, key: &Value, value: &Value, bias: Option<&Value>) -> Result<Value> {
    let flavour = query.graph.borrow().target.flavour;
    if flavour == Flavour::Ort
        && let Some(fused) = fused([query, key, value], bias)?
    {
        return Ok(fused);
    }
    let [_, _, _, size] = query.sizes()?;
    let scale = (size.fixed()? as f64).powf(-0.5);
    let logits = arithmetic::matmul(&query.affine(scale, 0.0)?, &key.permute(&[0, 1, 3, 2])?, "logits")?;
    let logits = match bias {
        Some(bias) => arithmetic::binary(("Add", "biased_logits"), &logits, bias, Array::add)?,
        None => logits,
    };
    arithmetic::matmul(&logits.softmax()?, value, "context")
}

/// `MultiHeadAttention`, which takes heads side by side, `(batch, length, heads * size)`: taking the heads apart before
/// it and joining them after it cancel out. None where the bias has a form that it does not take.
fn fused(operands: [&Value; 3], bias: Option<&Value>) -> Result<Option<Value>> {
    let [batch, heads, length, size] = operands[0].sizes()?;
    let heads = heads.fixed()?;
    let width = size.times(heads);
    let mut inputs = Vec::with_capacity(6);
    for operand in operands {
        inputs.push(Some(operand.permute(&[0, 2, 1, 3])?.reshape(&[batch, length, width])?.id));
    }
    match bias {
        None => {}
        Some(bias) if let Some(mask) = mask(bias) => inputs.extend([None, Some(mask.cast(Element::I32).id)]),
        Some(bias) if covers(&bias.shape(), &[batch, heads.into(), length, length]) => {
            inputs.extend([None, None, Some(bias.id)]);
        }
        Some(_) => return Ok(None),
    }
    let operator = Operator::microsoft("MultiHeadAttention")
        .with_int("num_heads", heads as i64)
        // What a masked logit is: exp of it is 0 in f32, and it is finite in f16.
        .with("mask_filter_value", Attribute::Float(-laps_model::tensor::PADDING as f32));
    let query = operands[0];
    let context = {
        let mut graph = query.graph.borrow_mut();
        let label = graph.label("context");
        graph.apply(operator, &inputs, (Element::F32, vec![batch, length, width]), &label)
    };
    let context = query.at(context).reshape(&[batch, length, heads.into(), size])?;
    context.permute(&[0, 2, 1, 3]).map(Some)
}

/// The mask, `(batch, length)`, that a bias was made of.
fn mask(bias: &Value) -> Option<Value> {
    let id = bias.graph.borrow().paddings.get(&bias.id).copied()?;
    Some(bias.at(id))
}

/// The operator broadcasts the first two axes only.
fn covers(bias: &[Dim], logits: &[Dim; 4]) -> bool {
    let fits = |axis: usize| bias[axis] == logits[axis] || bias[axis] == 1.into();
    bias.len() == 4 && fits(0) && fits(1) && bias[2..] == logits[2..]
}
