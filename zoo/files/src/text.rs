//! Text files as users write them.

use std::{
    fmt, fs,
    io::{self, BufRead},
    path::Path,
};

/// The byte order mark that some editors write in front of UTF-8 text.
const MARK: char = '\u{feff}';
/// Its bytes.
const MARK_BYTES: &[u8] = "\u{feff}".as_bytes();

/// A file is not UTF-8 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8 {
    /// The first line with other bytes, counted from 1.
    pub line: usize,
    /// Whether the file starts with the byte order mark of UTF-16.
    pub utf16: bool,
}

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.utf16 {
            true => f.write_str("text in UTF-16"),
            false => write!(f, "other bytes in line {}", self.line),
        }
    }
}

impl std::error::Error for NotUtf8 {}

/// Text without the byte order mark in front of it.
pub fn strip_mark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// The bytes of a text without the byte order mark in front of it, for parsers that read bytes.
pub fn strip_mark_bytes(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK_BYTES).unwrap_or(bytes)
}

/// Reads the byte order mark in front of a text, if there is one, for parsers that read a stream.
pub fn skip_mark(reader: &mut impl BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with(MARK_BYTES) {
        reader.consume(MARK_BYTES.len());
    }
    Ok(())
}

/// UTF-8 text from the bytes of a file, without the byte order mark in front of it.
pub fn decode_text(bytes: Vec<u8>) -> Result<String, NotUtf8> {
    match String::from_utf8(bytes) {
        Ok(mut text) => {
            if text.starts_with(MARK) {
                text.drain(..MARK.len_utf8());
            }
            Ok(text)
        }
        Err(error) => {
            let bytes = error.as_bytes();
            let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
            let before = String::from_utf8_lossy(&bytes[..error.utf8_error().valid_up_to()]);
            // A character after the last line break stands for the line that is not UTF-8.
            Err(NotUtf8 { line: lines(&format!("{before}x")).count(), utf16 })
        }
    }
}

/// Reads a UTF-8 text file, without the byte order mark in front of it.
///
/// # Errors
/// An error of the operating system, or [`NotUtf8`] in an error of the kind `InvalidData`.
pub fn read_text(path: &Path) -> io::Result<String> {
    decode_text(fs::read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The lines of a text as Python reads them: they end with `\n`, `\r\n` or `\r`. The last one may lack its end.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(end) = rest.find(['\n', '\r']) else { return Some(std::mem::take(&mut rest)) };
        let (line, from_end) = rest.split_at(end);
        let length = if from_end.starts_with("\r\n") { 2 } else { 1 };
        rest = &from_end[length..];
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_is_removed_once() {
        assert_eq!(decode_text("\u{feff}a\u{feff}\n".into()).unwrap(), "a\u{feff}\n");
        assert_eq!(strip_mark("\u{feff}a"), "a");
        assert_eq!(strip_mark("a"), "a");
        for (text, expected) in [("\u{feff}\u{feff}a", "\u{feff}a"), ("a", "a"), ("", "")] {
            assert_eq!(strip_mark_bytes(text.as_bytes()), expected.as_bytes());
            let mut reader = text.as_bytes();
            skip_mark(&mut reader).unwrap();
            assert_eq!(reader, expected.as_bytes());
        }
    }

    #[test]
    fn lines_end_as_in_python() {
        let split = |text| lines(text).collect::<Vec<_>>();
        assert_eq!(
            split("a\nb\r\nc\rd\n\n\re\u{2028}f\u{85}g\u{c}h"),
            ["a", "b", "c", "d", "", "", "e\u{2028}f\u{85}g\u{c}h"]
        );
        assert_eq!(split("a\n"), ["a"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn other_encodings_are_named() {
        let error = decode_text(b"a\r\nb\n\xff\n".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "other bytes in line 3");
        assert_eq!(decode_text(b"\xff\xfea\0".to_vec()).unwrap_err().to_string(), "text in UTF-16");
    }
}
