//! Matrix products, by the `gemm` crate.
#![allow(unsafe_code)] // `gemm::gemm` takes raw pointers; lengths are checked before each call

use gemm::Parallelism;
use rayon::prelude::*;

use super::{Array, binary, refused};
use crate::Result;

/// A matrix that starts at the first of `values`, with a stride between rows and one between columns.
#[derive(Clone, Copy)]
pub struct MatrixView<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

/// Whether a product replaces the values of its output or is added to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// Replace the values.
    Overwrite,
    /// Add to the values.
    Add,
}

impl<'a> MatrixView<'a> {
    /// Row-major values in rows of `columns`.
    pub fn rows(values: &'a [f32], columns: usize) -> Self {
        Self { values, row_stride: columns, column_stride: 1 }
    }

    /// The transpose of [`rows`](Self::rows).
    pub fn columns(values: &'a [f32], columns: usize) -> Self {
        Self { values, row_stride: 1, column_stride: columns }
    }
}

impl MatrixView<'_> {
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// Computes `result (m, n)` from `left (m, k)` and `right (k, n)` on one thread; `extents` are `[m, k, n]`.
///
/// # Errors
/// [`Error::Operation`](crate::Error::Operation) if a slice is too short for the extents.
pub fn product(
    result: &mut [f32],
    accumulate: Accumulate,
    extents: [usize; 3],
    left: MatrixView<'_>,
    right: MatrixView<'_>,
) -> Result<()> {
    multiply(result, accumulate, extents, &left, &right, Parallelism::None)
}

fn multiply(
    result: &mut [f32],
    accumulate: Accumulate,
    [m, k, n]: [usize; 3],
    left: &MatrixView<'_>,
    right: &MatrixView<'_>,
    parallelism: Parallelism,
) -> Result<()> {
    if result.len() < m * n || !left.holds(m, k) || !right.holds(k, n) {
        return Err(refused("matmul", format!("matrices of {m}x{k} and {k}x{n}"), "fewer values"));
    }
    // SAFETY: the three extents were checked against the slices above, and `result` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            result.as_mut_ptr(),
            1,
            n as isize,
            accumulate == Accumulate::Add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
    Ok(())
}

pub(super) fn matmul(left: &Array, right: &Array) -> Result<Array> {
    let mismatch =
        || refused("matmul", "(..., m, k) and (..., k, n)", format!("{:?} and {:?}", left.shape, right.shape));
    let ([outer_left @ .., m, k], [outer_right @ .., inner, n]) = (&left.shape[..], &right.shape[..]) else {
        return Err(mismatch());
    };
    let [m, k, n] = [*m, *k, *n];
    if k != *inner {
        return Err(mismatch());
    }
    let outer = binary::broadcast_shape("matmul", outer_left, outer_right)?;
    let full = |matrix: [usize; 2]| [&outer[..], &matrix].concat();
    let [a, b] = [(left, full([m, k])), (right, full([k, n]))].map(|(array, shape)| binary::strides(array, &shape));
    let shape = full([m, n]);
    let mut values = vec![0.0; shape.iter().product()];
    let mut offsets = Vec::with_capacity(outer.iter().product());
    binary::each_offset(&outer, [&a, &b], |pair| offsets.push(pair));
    values.par_chunks_exact_mut((m * n).max(1)).zip(offsets).try_for_each(|(result, [at, bt])| {
        let [left, right] = [(left, at, k), (right, bt, n)].map(|(array, offset, row_stride)| MatrixView {
            values: &array.values[offset..],
            row_stride,
            column_stride: 1,
        });
        multiply(result, Accumulate::Overwrite, [m, k, n], &left, &right, Parallelism::None)
    })?;
    Array::new(&shape, values)
}

pub(super) fn linear(input: &Array, weight: &Array, bias: Option<&Array>) -> Result<Array> {
    let inner = input.last("linear")?;
    let [out, columns] = weight.shape[..] else {
        return Err(refused("linear", "a weight of (out, in)", format!("{:?}", weight.shape)));
    };
    if columns != inner || bias.is_some_and(|bias| bias.shape != [out]) {
        let found = format!("weight {:?}, bias {:?}", weight.shape, bias.map(|bias| &bias.shape));
        return Err(refused("linear", format!("a weight of (out, {inner}) and a bias of (out)"), found));
    }
    let rows = input.values.len() / inner.max(1);
    let mut values = vec![0.0; rows * out];
    let left = MatrixView { values: &input.values, row_stride: inner, column_stride: 1 };
    let right = MatrixView { values: &weight.values, row_stride: 1, column_stride: inner };
    multiply(&mut values, Accumulate::Overwrite, [rows, inner, out], &left, &right, Parallelism::Rayon(0))?;
    if let Some(bias) = bias {
        for row in values.chunks_exact_mut(out.max(1)) {
            row.iter_mut().zip(bias.values.iter()).for_each(|(x, b)| *x += b);
        }
    }
    let mut shape = input.shape.clone();
    shape.pop();
    shape.push(out);
    Array::new(&shape, values)
}
