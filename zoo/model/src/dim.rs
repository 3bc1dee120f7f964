//! [`Dim`], a size that may be symbolic.

use std::fmt;

use crate::{Error, Result};

/// The size of one axis: a number, or an integer multiple of a symbol such as `batch`, plus a number.
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
/// assert_eq!(Dim::symbol("words").plus(1.into())?.to_string(), "words+1");
/// # Ok::<(), laps_model::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dim {
    factor: usize,
    symbol: Option<Symbol>,
    /// Added to the multiple of the symbol; 0 without one.
    offset: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Symbol {
    name: &'static str,
    largest: Option<usize>,
}

impl Dim {
    /// The symbol `name`, for a size of 1 or more.
    pub const fn symbol(name: &'static str) -> Self {
        Self { factor: 1, symbol: Some(Symbol { name, largest: None }), offset: 0 }
    }

    /// The symbol `name`, for a size from 1 to `largest`.
    pub const fn bounded(name: &'static str, largest: usize) -> Self {
        Self { factor: 1, symbol: Some(Symbol { name, largest: Some(largest) }), offset: 0 }
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

    /// The number, given the size of each symbol.
    pub fn evaluate(self, size: impl Fn(&str) -> usize) -> usize {
        self.factor * self.symbol.map_or(1, |symbol| size(symbol.name)) + self.offset
    }

    /// The smallest size.
    pub fn smallest(self) -> usize {
        self.factor + self.offset
    }

    /// The largest size.
    ///
    /// # Errors
    /// [`Error::Operation`] if the symbol has no bound.
    pub fn largest(self) -> Result<usize> {
        match self.symbol {
            None => Ok(self.factor),
            Some(Symbol { largest: Some(largest), .. }) => Ok(self.factor * largest + self.offset),
            Some(_) => Err(operation("size", "a number or a symbol with a bound", self)),
        }
    }

    /// The factor and the symbol; None for the sum of a symbol and a number.
    pub fn parts(self) -> Option<(usize, Option<&'static str>)> {
        (self.offset == 0).then_some((self.factor, self.symbol.map(|symbol| symbol.name)))
    }

    /// `count` times this size.
    pub fn times(self, count: usize) -> Self {
        Self { factor: self.factor * count, offset: self.offset * count, ..self }
    }

    /// The sum of both sizes.
    ///
    /// # Errors
    /// [`Error::Operation`] for two different symbols.
    pub fn plus(self, other: Self) -> Result<Self> {
        match (self.symbol, other.symbol) {
            (None, None) => Ok((self.factor + other.factor).into()),
            (Some(_), None) => Ok(Self { offset: self.offset + other.factor, ..self }),
            (None, Some(_)) => other.plus(self),
            (Some(own), Some(foreign)) if own == foreign => {
                Ok(Self { factor: self.factor + other.factor, offset: self.offset + other.offset, ..self })
            }
            _ => Err(operation("size", &format!("{self} or a number"), other)),
        }
    }

    /// This size divided by `count`.
    ///
    /// # Errors
    /// [`Error::Operation`] if it is not a multiple of `count`.
    pub fn divide(self, count: usize) -> Result<Self> {
        if count == 0 || !self.factor.is_multiple_of(count) || !self.offset.is_multiple_of(count) {
            return Err(operation("size", &format!("a multiple of {count}"), self));
        }
        Ok(Self { factor: self.factor / count, offset: self.offset / count, ..self })
    }
}

fn operation(operation: &'static str, expected: &str, found: Dim) -> Error {
    Error::Operation { operation, expected: expected.to_owned(), found: found.to_string() }
}

impl From<usize> for Dim {
    fn from(number: usize) -> Self {
        Self { factor: number, symbol: None, offset: 0 }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.factor, self.symbol) {
            (number, None) => write!(f, "{number}")?,
            (1, Some(symbol)) => f.write_str(symbol.name)?,
            (factor, Some(symbol)) => write!(f, "{factor}*{}", symbol.name)?,
        }
        if self.offset > 0 { write!(f, "+{}", self.offset) } else { Ok(()) }
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

    #[test]
    fn sums_with_a_number_keep_their_symbol_and_bounds() {
        let nodes = Dim::bounded("words", 77).plus(1.into()).unwrap();
        assert_eq!((nodes.to_string().as_str(), nodes.smallest(), nodes.largest().unwrap()), ("words+1", 2, 78));
        assert_eq!(nodes.times(2).to_string(), "2*words+2");
        assert!(nodes.times(2).divide(4).is_err());
        assert!(nodes.parts().is_none());
        assert_eq!(Dim::from(2).plus(3.into()).unwrap().fixed().unwrap(), 5);
        assert!(nodes.plus(Dim::symbol("images")).is_err());
        assert!(Dim::symbol("images").largest().is_err());
    }
}
