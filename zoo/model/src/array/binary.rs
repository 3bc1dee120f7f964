//! Element-wise operations with broadcasting.

use super::{Array, refused};
use crate::Result;

/// Applies `f` to each pair of elements.
pub(super) fn apply(
    operation: &'static str,
    left: &Array,
    right: &Array,
    f: impl Fn(f32, f32) -> f32,
) -> Result<Array> {
    if left.shape == right.shape {
        return Array::new(&left.shape, left.values.iter().zip(right.values.iter()).map(|(&a, &b)| f(a, b)).collect());
    }
    let shape = broadcast_shape(operation, &left.shape, &right.shape)?;
    let [a, b] = [left, right].map(|array| strides(array, &shape));
    let mut values = Vec::with_capacity(shape.iter().product());
    let (width, outer) = split(&shape);
    let [step_a, step_b] = [&a, &b].map(|strides| strides.last().copied().unwrap_or(0));
    each_offset(outer, [&a, &b], |[at, bt]| {
        values.extend((0..width).map(|i| f(left.values[at + i * step_a], right.values[bt + i * step_b])));
    });
    Array::new(&shape, values)
}

/// Repeats `array` to `shape`.
pub(super) fn expand(array: &Array, shape: &[usize]) -> Result<Array> {
    if broadcast_shape("expand", &array.shape, shape)? != shape {
        return Err(refused("expand", format!("sizes that repeat to {shape:?}"), format!("{:?}", array.shape)));
    }
    let steps = strides(array, shape);
    let (width, outer) = split(shape);
    let step = steps.last().copied().unwrap_or(0);
    let mut values = Vec::with_capacity(shape.iter().product());
    each_offset(outer, [&steps], |[at]| values.extend((0..width).map(|i| array.values[at + i * step])));
    Array::new(shape, values)
}

/// The shape that `left` and `right` broadcast to.
pub(super) fn broadcast_shape(operation: &'static str, left: &[usize], right: &[usize]) -> Result<Vec<usize>> {
    let rank = left.len().max(right.len());
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    (0..rank)
        .map(|axis| match (size(left, axis), size(right, axis)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => Err(refused(operation, "sizes that are equal or 1", format!("{left:?} and {right:?}"))),
        })
        .collect()
}

/// Strides of `array` along the axes of `shape`, which it broadcasts to. The stride of a repeated axis is 0.
pub(super) fn strides(array: &Array, shape: &[usize]) -> Vec<usize> {
    let own = array.strides();
    let missing = shape.len() - own.len();
    (0..shape.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(at) if array.shape[at] == shape[axis] => own[at],
            _ => 0,
        })
        .collect()
}

/// Calls `f` with the offsets of every index into the axes `outer`, in row-major order.
pub(super) fn each_offset<const N: usize>(outer: &[usize], strides: [&[usize]; N], mut f: impl FnMut([usize; N])) {
    let mut index = vec![0; outer.len()];
    for _ in 0..outer.iter().product() {
        f(strides.map(|steps| index.iter().zip(steps).map(|(i, step)| i * step).sum()));
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            if index[axis] < outer[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

fn split(shape: &[usize]) -> (usize, &[usize]) {
    shape.split_last().map_or((1, shape), |(&width, outer)| (width, outer))
}
