//! The bytes of a pickle, read one field at a time and never more than the limits allow.

use std::io::{BufRead, ErrorKind, Read};

use super::PickleError;

/// Longest pickle in bytes. A whole LAPS checkpoint has about 100 kB, and three times that with its optimizer state;
/// the storages lie outside the pickle.
pub(crate) const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// Longest single text, byte string or integer in bytes. The longest one in a checkpoint is a path in its options.
const MAX_FIELD_BYTES: u64 = 1 << 20;

/// The bytes of one or several pickles that follow each other.
pub(super) struct Stream<R> {
    inner: R,
    left: u64,
}

impl<R: BufRead> Stream<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: MAX_PICKLE_BYTES }
    }

    /// How many bytes were read so far.
    pub(super) fn position(&self) -> u64 {
        MAX_PICKLE_BYTES - self.left
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

    /// A field whose length the pickle states.
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

    /// A text whose length in bytes the pickle states. Python writes a path that is not UTF-8 with lone surrogates;
    /// each byte of such a sequence becomes U+FFFD.
    pub(super) fn text(&mut self, length: u64) -> Result<String, PickleError> {
        Ok(String::from_utf8_lossy(&self.bytes(length)?).into_owned())
    }

    /// A field that ends at the end of its line, as in protocol 0.
    pub(super) fn line(&mut self) -> Result<String, PickleError> {
        String::from_utf8(self.line_bytes()?).map_err(|_| PickleError::malformed("a line that is not UTF-8"))
    }

    /// As [`line`](Self::line), without decoding.
    pub(super) fn line_bytes(&mut self) -> Result<Vec<u8>, PickleError> {
        let mut line = Vec::new();
        self.inner.by_ref().take(MAX_FIELD_BYTES).read_until(b'\n', &mut line)?;
        self.take(line.len() as u64)?;
        match line.pop() {
            Some(b'\n') => Ok(line),
            _ => Err(PickleError::malformed("a line without an end")),
        }
    }

    fn take(&mut self, length: u64) -> Result<(), PickleError> {
        let too_long = || PickleError::Malformed(format!("a pickle of more than {MAX_PICKLE_BYTES} bytes"));
        self.left = self.left.checked_sub(length).ok_or_else(too_long)?;
        Ok(())
    }
}
