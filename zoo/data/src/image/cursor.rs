//! Reads fields from the bytes of a file.

/// A position in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Number of bytes before the cursor.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The bytes from the cursor on.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// The next `count` bytes. `None` if the file ends before; the cursor then stays.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.rest().get(..count)?;
        self.position += count;
        Some(taken)
    }

    /// The next `count` bytes, or what is left of them.
    pub(super) fn take_up_to(&mut self, count: usize) -> &'a [u8] {
        let taken = &self.rest()[..count.min(self.rest().len())];
        self.position += taken.len();
        taken
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.rest().first_chunk()?;
        self.position += N;
        Some(array)
    }

    /// The next byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// The next two bytes, little-endian.
    pub(super) fn u16_le(&mut self) -> Option<usize> {
        self.array().map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    /// The next three bytes, little-endian.
    pub(super) fn u24_le(&mut self) -> Option<usize> {
        self.array().map(|[a, b, c]| usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16)
    }

    /// The next four bytes, little-endian.
    pub(super) fn u32_le(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next four bytes, big-endian.
    pub(super) fn u32_be(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
}
