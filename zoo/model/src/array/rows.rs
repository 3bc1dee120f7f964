//! Operations along one axis.

use rayon::prelude::*;

use super::{Array, PARALLEL, refused};
use crate::Result;

pub(super) fn softmax(array: &Array) -> Result<Array> {
    each_row("softmax", array, |row| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        for x in row.iter_mut() {
            *x = libm::expf(*x - largest);
            total += *x;
        }
        row.iter_mut().for_each(|x| *x /= total);
    })
}

pub(super) fn layer_norm(array: &Array, weight: &Array, bias: &Array, eps: f64) -> Result<Array> {
    let width = array.last("layer_norm")?;
    if weight.shape != [width] || bias.shape != [width] {
        let found = format!("{:?} and {:?}", weight.shape, bias.shape);
        return Err(refused("layer_norm", format!("weight and bias of {width}"), found));
    }
    each_row("layer_norm", array, |row| {
        // Sums in f64: in f32 the variance of a row of a thousand values loses three digits.
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + eps).sqrt();
        for ((x, w), b) in row.iter_mut().zip(weight.values.iter()).zip(bias.values.iter()) {
            *x = ((f64::from(*x) - mean) * scale) as f32 * w + b;
        }
    })
}

pub(super) fn normalize(array: &Array, eps: f64) -> Result<Array> {
    each_row("normalize", array, |row| {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(eps);
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    })
}

pub(super) fn cumulative_sum(array: &Array) -> Result<Array> {
    each_row("cumulative_sum", array, |row| {
        let mut total = 0.0;
        for x in row {
            total += *x;
            *x = total;
        }
    })
}

/// Each line along `axis` in descending order.
pub(super) fn sort_descending(array: &Array, axis: usize) -> Result<Array> {
    let rank = array.shape.len();
    if axis >= rank {
        return Err(refused("sort_descending", format!("an axis {axis}"), format!("{:?}", array.shape)));
    }
    // Swapping two axes twice gives the original order.
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(axis, rank - 1);
    let sorted = each_row("sort_descending", &super::axes::permute(array, &order)?, |row| {
        row.sort_unstable_by(|a, b| b.total_cmp(a));
    })?;
    super::axes::permute(&sorted, &order)
}

/// 1 at the `count` largest values of each row, 0 elsewhere. Ties go to the first.
pub(super) fn top_k_mask(array: &Array, count: usize) -> Result<Array> {
    let width = array.last("top_k_mask")?;
    if count > width {
        return Err(refused("top_k_mask", format!("at most {width} entries"), count.to_string()));
    }
    each_row("top_k_mask", array, |row| {
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        row.fill(0.0);
        order[..count].iter().for_each(|&index| row[index] = 1.0);
    })
}

/// Reduces `axis` to size 1 with `f`.
pub(super) fn fold(
    operation: &'static str,
    array: &Array,
    axis: usize,
    start: f32,
    f: impl Fn(f32, f32) -> f32,
) -> Result<Array> {
    let Some(&size) = array.shape.get(axis) else {
        return Err(refused(operation, format!("an axis {axis}"), format!("{:?}", array.shape)));
    };
    let inner: usize = array.shape[axis + 1..].iter().product();
    let outer: usize = array.shape[..axis].iter().product();
    let mut values = vec![start; outer * inner];
    if inner > 0 && size > 0 {
        for (result, block) in values.chunks_exact_mut(inner).zip(array.values.chunks_exact(size * inner)) {
            for row in block.chunks_exact(inner) {
                result.iter_mut().zip(row).for_each(|(all, &x)| *all = f(*all, x));
            }
        }
    }
    let mut shape = array.shape.clone();
    shape[axis] = 1;
    Array::new(&shape, values)
}

fn each_row(operation: &'static str, array: &Array, f: impl Fn(&mut [f32]) + Send + Sync) -> Result<Array> {
    let width = array.last(operation)?.max(1);
    let mut values = array.values.to_vec();
    values.par_chunks_exact_mut(width).with_min_len(PARALLEL.div_ceil(width)).for_each(f);
    Array::new(&array.shape, values)
}
