//! Shape inference with symbolic sizes.

use laps_model::dim::Dim;
use laps_model::{Error, Result};

/// The error of an operation whose operands do not fit.
pub(super) fn refused<T>(operation: &'static str, expected: &str, found: impl std::fmt::Debug) -> Result<T> {
    Err(Error::Operation { operation, expected: expected.to_owned(), found: format!("{found:?}") })
}

/// The shape of two operands after NumPy broadcasting.
pub(super) fn broadcast(operation: &'static str, left: &[Dim], right: &[Dim]) -> Result<Vec<Dim>> {
    let rank = left.len().max(right.len());
    let size = |shape: &[Dim], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1.into(), |at| shape[at]);
    let one = Dim::from(1);
    (0..rank)
        .map(|axis| match (size(left, axis), size(right, axis)) {
            (a, b) if a == b || b == one => Ok(a),
            (a, b) if a == one => Ok(b),
            _ => refused(operation, "sizes that are equal or 1", (left, right)),
        })
        .collect()
}

/// Number of elements: the numeric factor, and the symbols and sums that are further factors.
pub(super) fn elements(shape: &[Dim]) -> (usize, Vec<String>) {
    let mut number = 1;
    let mut others = Vec::new();
    for size in shape {
        match size.parts() {
            Some((factor, symbol)) => {
                number *= factor;
                others.extend(symbol.map(str::to_owned));
            }
            None => others.push(size.to_string()),
        }
    }
    others.sort_unstable();
    (number, others)
}

/// The `shape` operand of `Reshape`: 0 for a symbol that stays on its axis, a number, or a single -1.
pub(super) fn reshape(from: &[Dim], to: &[Dim]) -> Result<Vec<i64>> {
    if elements(from) != elements(to) {
        return refused("reshape", "the same number of elements", (from, to));
    }
    let mut free = 0;
    let sizes = to.iter().enumerate().map(|(axis, size)| match size.parts() {
        Some((number, None)) => i64::try_from(number).unwrap_or(i64::MAX),
        _ if from.get(axis) == Some(size) => 0,
        _ => {
            free += 1;
            -1
        }
    });
    let sizes: Vec<i64> = sizes.collect();
    if free > 1 {
        return refused("reshape", "at most one symbol that changes its axis", (from, to));
    }
    Ok(sizes)
}

/// `shape` with `axis` set to `size`.
pub(super) fn with_axis(operation: &'static str, shape: &[Dim], axis: usize, size: Dim) -> Result<Vec<Dim>> {
    let mut shape = shape.to_vec();
    match shape.get_mut(axis) {
        Some(old) => *old = size,
        None => return refused(operation, &format!("an axis {axis}"), shape),
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use laps_model::dim::Dim;

    use super::{broadcast, reshape};

    #[test]
    fn reshape_uses_0_for_kept_symbols_and_minus_1_for_moved_ones() {
        let (batch, length) = (Dim::symbol("batch"), Dim::symbol("length"));
        let split = [batch, length, 4.into(), 8.into()];
        assert_eq!(reshape(&[batch, length, 32.into()], &split).unwrap(), [0, 0, 4, 8]);
        assert_eq!(reshape(&[batch, length], &[batch, 1.into(), 1.into(), length]).unwrap(), [0, 1, 1, -1]);
        assert_eq!(reshape(&[batch, 12.into()], &[batch.times(4), 3.into()]).unwrap(), [-1, 3]);
        assert!(reshape(&[batch, length], &[length, batch]).is_err());
        assert!(reshape(&[batch, 6.into()], &[batch, 5.into()]).is_err());
    }

    #[test]
    fn symbols_broadcast_with_themselves_and_1() {
        let batch = Dim::symbol("batch");
        assert_eq!(broadcast("add", &[batch, 1.into()], &[3.into()]).unwrap(), [batch, 3.into()]);
        assert!(broadcast("add", &[batch], &[3.into()]).is_err());
        assert!(broadcast("add", &[batch], &[Dim::symbol("length")]).is_err());
    }
}
