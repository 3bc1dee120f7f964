//! Bytes of a pickle, read one field at a time and never more than was promised.

use std::io::{BufRead, ErrorKind, Read};

use super::PickleError;

/// Longest pickle that is read, in bytes. The pickle of a whole LAPS checkpoint takes about 100 kB, three times that with
/// the state of its optimizer; storages lie outside of it.
pub(crate) const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// Longest single text, byte string or integer, in bytes. The longest that a checkpoint needs is a path among its
/// options.
pub(crate) const MAX_FIELD_BYTES: u64 = 1 << 20;

/// The bytes of one or several pickles.
pub(super) struct Stream<R> {
    inner: R,
    left: u64,
}

impl<R: BufRead> Stream<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: MAX_PICKLE_BYTES }
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut bytes = [0; N];
        self.take(N as u64)?;
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A field whose length the pickle declares.
    pub(super) fn bytes(&mut self, length: u64) -> Result<Vec<u8>, PickleError> {
        if length > MAX_FIELD_BYTES {
            return Err(PickleError::Malformed(format!("a field of {length} bytes, of at most {MAX_FIELD_BYTES}")));
        }
        self.take(length)?;
        let mut bytes = Vec::new();
        if self.inner.by_ref().take(length).read_to_end(&mut bytes)? as u64 != length {
            return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        Ok(bytes)
    }

    pub(super) fn text(&mut self, length: u64) -> Result<String, PickleError> {
        String::from_utf8(self.bytes(length)?).map_err(|_| PickleError::malformed("a text that is not UTF-8"))
    }

    /// A field that ends with its line, as protocol 0 writes them.
    pub(super) fn line(&mut self) -> Result<String, PickleError> {
        let mut line = Vec::new();
        self.inner.by_ref().take(MAX_FIELD_BYTES).read_until(b'\n', &mut line)?;
        self.take(line.len() as u64)?;
        match line.pop() {
            Some(b'\n') => {}
            _ => return Err(PickleError::malformed("a line without an end")),
        }
        String::from_utf8(line).map_err(|_| PickleError::malformed("a line that is not UTF-8"))
    }

    fn take(&mut self, length: u64) -> Result<(), PickleError> {
        let too_long = || PickleError::Malformed(format!("a pickle of more than {MAX_PICKLE_BYTES} bytes"));
        self.left = self.left.checked_sub(length).ok_or_else(too_long)?;
        Ok(())
    }
}
