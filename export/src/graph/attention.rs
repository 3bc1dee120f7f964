//! Recording of attention, as single operators or as ONNX Runtime's fused `MultiHeadAttention`.

use laps_model::Result;
use laps_model::{array::Array, dim::Dim, tensor::Tensor};

use super::{Attribute, ElementType, Flavour, GraphTensor, Operator, arithmetic};

/// The attention bias of a padding mask. The graph remembers the mask, because the fused operator takes the mask itself.
pub(super) fn padding_bias(mask: &GraphTensor) -> Result<GraphTensor> {
    let [batch, length] = mask.sizes()?;
    let bias = mask.affine(laps_model::tensor::MASK_LOGIT, -laps_model::tensor::MASK_LOGIT)?.reshape(&[
        batch,
        1.into(),
        1.into(),
        length,
    ])?;
    mask.graph.borrow_mut().paddings.insert(bias.id, mask.id);
    Ok(bias)
}

/// Scaled dot-product attention. Query, key, value and result are `(batch, heads, length, size)`.
pub(super) fn attention(
    query: &GraphTensor,
    key: &GraphTensor,
    value: &GraphTensor,
    bias: Option<&GraphTensor>,
) -> Result<GraphTensor> {
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

/// `MultiHeadAttention` of ONNX Runtime, or None if it does not support the shape of the bias. The operator takes
/// `(batch, length, heads * size)`, so the transposes that split and merge the heads cancel out.
fn fused(operands: [&GraphTensor; 3], bias: Option<&GraphTensor>) -> Result<Option<GraphTensor>> {
    let [batch, heads, length, size] = operands[0].sizes()?;
    let heads = heads.fixed()?;
    let width = size.times(heads);
    let mut inputs = Vec::with_capacity(6);
    for operand in operands {
        inputs.push(Some(operand.permute(&[0, 2, 1, 3])?.reshape(&[batch, length, width])?.id));
    }
    match bias {
        None => {}
        Some(bias) if let Some(mask) = mask(bias) => inputs.extend([None, Some(mask.cast(ElementType::I32).id)]),
        Some(bias) if covers(&bias.shape(), &[batch, heads.into(), length, length]) => {
            inputs.extend([None, None, Some(bias.id)]);
        }
        Some(_) => return Ok(None),
    }
    let operator = Operator::microsoft("MultiHeadAttention")
        .with_int("num_heads", heads as i64)
        // GraphTensor of masked logits: exp(-30000) is 0 in f32, and -30000 is finite in f16.
        .with("mask_filter_value", Attribute::Float(-laps_model::tensor::MASK_LOGIT as f32));
    let query = operands[0];
    let context = {
        let mut graph = query.graph.borrow_mut();
        let label = graph.label("context");
        graph.apply(operator, &inputs, (ElementType::F32, vec![batch, length, width]), &label)
    };
    let context = query.at(context).reshape(&[batch, length, heads.into(), size])?;
    context.permute(&[0, 2, 1, 3]).map(Some)
}

/// The mask `(batch, length)` that an attention bias was computed from.
fn mask(bias: &GraphTensor) -> Option<GraphTensor> {
    let id = bias.graph.borrow().paddings.get(&bias.id).copied()?;
    Some(bias.at(id))
}

/// Returns true if a bias broadcasts to the logits as `MultiHeadAttention` supports it: along the first two axes only.
fn covers(bias: &[Dim], logits: &[Dim; 4]) -> bool {
    let fits = |axis: usize| bias[axis] == logits[axis] || bias[axis] == 1.into();
    bias.len() == 4 && fits(0) && fits(1) && bias[2..] == logits[2..]
}
