//! [`Dim`], a size that may be symbolic.

use std::fmt;

use crate::{Error, Result};

/// The size of one axis: a number, or an integer multiple of a symbol such as `batch`.
///
/// Tensors with values have numbers only. A graph recorder has symbols for the dynamic axes of the exported graph.
/// Arithmetic whose result has another form is an error.
///
/// ```
/// use laps_model::dim::Dim;
///
/// let windows = Dim::symbol("batch").times(64);
/// assert_eq!(windows.divide(16)?.to_string(), "4*batch");
/// assert!(windows.fixed().is_err());
/// # Ok::<(), laps_model::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dim {
    factor: usize,
    symbol: Option<&'static str>,
}

impl Dim {
    /// The symbol `name`.
    pub const fn symbol(name: &'static str) -> Self {
        Self { factor: 1, symbol: Some(name) }
    }

    /// The number.
    ///
    /// # Errors
    /// [`Error::Operation`] if the size is symbolic.
    pub fn fixed(self) -> Result<usize> {
        match self.symbol {
            None => Ok(self.factor),
            Some(_) => Err(operation("size", "a number", self)),
        }
    }

    /// The factor and the symbol.
    pub fn parts(self) -> (usize, Option<&'static str>) {
        (self.factor, self.symbol)
    }

    /// `count` times this size.
    pub fn times(self, count: usize) -> Self {
        Self { factor: self.factor * count, ..self }
    }

    /// This size divided by `count`.
    ///
    /// # Errors
    /// [`Error::Operation`] if it is not a multiple of `count`.
    pub fn divide(self, count: usize) -> Result<Self> {
        if count == 0 || !self.factor.is_multiple_of(count) {
            return Err(operation("size", &format!("a multiple of {count}"), self));
        }
        Ok(Self { factor: self.factor / count, ..self })
    }
}

fn operation(operation: &'static str, expected: &str, found: Dim) -> Error {
    Error::Operation { operation, expected: expected.to_owned(), found: found.to_string() }
}

impl From<usize> for Dim {
    fn from(number: usize) -> Self {
        Self { factor: number, symbol: None }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.factor, self.symbol) {
            (number, None) => write!(f, "{number}"),
            (1, Some(symbol)) => f.write_str(symbol),
            (factor, Some(symbol)) => write!(f, "{factor}*{symbol}"),
        }
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Dim;

    #[test]
    fn multiples_of_a_symbol_stay_multiples() {
        let windows = Dim::symbol("batch").times(64);
        assert_eq!(windows.to_string(), "64*batch");
        assert_eq!(windows.divide(16).unwrap().to_string(), "4*batch");
        assert!(windows.divide(5).is_err());
        assert!(windows.fixed().is_err());
        assert_eq!(Dim::from(12).divide(4).unwrap().fixed().unwrap(), 3);
        assert!(Dim::from(12).divide(0).is_err());
    }
}
