//! Operations that rearrange values: permute, narrow, select, concat, embedding.

use super::{Array, binary::each_offset, refused};
use crate::Result;

pub(super) fn permute(array: &Array, order: &[usize]) -> Result<Array> {
    let mut seen = vec![false; array.shape.len()];
    let valid = order.len() == seen.len()
        && order.iter().all(|&axis| axis < seen.len() && !std::mem::replace(&mut seen[axis], true));
    if !valid {
        return Err(refused("permute", format!("every axis of {:?} once", array.shape), format!("{order:?}")));
    }
    let strides = array.strides();
    let shape: Vec<usize> = order.iter().map(|&axis| array.shape[axis]).collect();
    let steps: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
    let Some((&width, outer)) = shape.split_last() else { return Ok(array.clone()) };
    let step = steps[outer.len()];
    let mut values = Vec::with_capacity(array.values.len());
    each_offset(outer, [&steps], |[at]| {
        if step == 1 {
            values.extend_from_slice(&array.values[at..at + width]);
        } else {
            values.extend((0..width).map(|i| array.values[at + i * step]));
        }
    });
    Array::new(&shape, values)
}

pub(super) fn narrow(array: &Array, axis: usize, start: usize, length: usize) -> Result<Array> {
    let size = axis_size("narrow", array, axis)?;
    if start.checked_add(length).is_none_or(|end| end > size) {
        return Err(refused("narrow", format!("a part of 0..{size}"), format!("{length} from {start}")));
    }
    if length == size {
        // The result shares the values.
        return Ok(array.clone());
    }
    let inner: usize = array.shape[axis + 1..].iter().product();
    let values = array.values.chunks_exact((size * inner).max(1));
    let values = values.flat_map(|block| &block[start * inner..(start + length) * inner]).copied().collect();
    Array::new(&with_size(array, axis, length), values)
}

pub(super) fn select(array: &Array, axis: usize, indices: &[usize]) -> Result<Array> {
    let size = axis_size("select", array, axis)?;
    if let Some(bad) = indices.iter().find(|&&index| index >= size) {
        return Err(refused("select", format!("indices below {size}"), bad.to_string()));
    }
    let inner: usize = array.shape[axis + 1..].iter().product();
    let mut values = Vec::with_capacity(array.values.len() / size.max(1) * indices.len());
    for block in array.values.chunks_exact((size * inner).max(1)) {
        for index in indices {
            values.extend_from_slice(&block[index * inner..(index + 1) * inner]);
        }
    }
    Array::new(&with_size(array, axis, indices.len()), values)
}

pub(super) fn concat(parts: &[&Array], axis: usize) -> Result<Array> {
    let Some(first) = parts.first() else { return Err(refused("concat", "at least one tensor", "none")) };
    axis_size("concat", first, axis)?;
    let same = |part: &&Array| with_size_checked(part, axis) == with_size_checked(first, axis);
    if let Some(other) = parts.iter().find(|part| !same(part)) {
        return Err(refused("concat", format!("{:?} but for axis {axis}", first.shape), format!("{:?}", other.shape)));
    }
    let blocks: usize = first.shape[..axis].iter().product();
    let mut values = Vec::with_capacity(parts.iter().map(|part| part.values.len()).sum());
    for block in 0..blocks {
        for part in parts {
            let width = part.values.len() / blocks;
            values.extend_from_slice(&part.values[block * width..(block + 1) * width]);
        }
    }
    let size = parts.iter().map(|part| part.shape[axis]).sum();
    Array::new(&with_size(first, axis, size), values)
}

pub(super) fn embedding(table: &Array, input_ids: &Array) -> Result<Array> {
    let [rows, width] = table.shape[..] else {
        return Err(refused("embedding", "a table of rows", format!("{:?}", table.shape)));
    };
    let mut values = Vec::with_capacity(input_ids.values.len() * width);
    for &id in input_ids.values.iter() {
        let row = id as usize;
        if row as f32 != id || row >= rows {
            return Err(refused("embedding", format!("a whole number below {rows}"), id.to_string()));
        }
        values.extend_from_slice(&table.values[row * width..(row + 1) * width]);
    }
    let shape: Vec<usize> = input_ids.shape.iter().copied().chain([width]).collect();
    Array::new(&shape, values)
}

fn axis_size(operation: &'static str, array: &Array, axis: usize) -> Result<usize> {
    let size = array.shape.get(axis).copied();
    size.ok_or_else(|| refused(operation, format!("an axis {axis}"), format!("{:?}", array.shape)))
}

fn with_size(array: &Array, axis: usize, size: usize) -> Vec<usize> {
    let mut shape = array.shape.clone();
    shape[axis] = size;
    shape
}

/// The shape with size 0 for `axis`, or `None` if there is no such axis.
fn with_size_checked(array: &Array, axis: usize) -> Option<Vec<usize>> {
    (axis < array.shape.len()).then(|| with_size(array, axis, 0))
}
