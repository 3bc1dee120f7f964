//! A strict parser of the header `Content-Range`.

/// `bytes 100-199/1000`: a range of a file of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// Offset of the first byte.
    pub(super) first: u64,
    /// Offset of the last byte, inclusive.
    pub(super) last: u64,
    /// Size of the whole file in bytes.
    pub(super) total: u64,
}

/// Maximum number of digits: those of `u64::MAX`.
const MAX_DIGITS: usize = 20;

impl ContentRange {
    /// Parses the value of the header. Returns None unless it is a single, consistent byte range of a known length: an
    /// unknown length (`*`), other units and signed numbers are rejected.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let (unit, value) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case("bytes ") {
            return None;
        }
        let (range, total) = value.trim_start().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        (first <= last && last < total).then_some(Self { first, last, total })
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::ContentRange;

    #[test]
    fn range_of_known_length_is_parsed() {
        let range = Some(ContentRange { first: 100, last: 199, total: 1000 });
        for value in ["bytes 100-199/1000", " Bytes  100-199/1000 ", "bytes 0100-199/1000"] {
            assert_eq!(ContentRange::parse(value), range, "{value}");
        }
        let whole = format!("bytes 0-{}/{}", u64::MAX - 1, u64::MAX);
        assert_eq!(ContentRange::parse(&whole).unwrap().total, u64::MAX);
    }

    #[test]
    fn other_values_are_rejected() {
        for value in [
            "",
            "bytes",
            "bytes ",
            "bytes */1000",
            "bytes 100-199/*",
            "bytes 199-100/1000",
            "bytes 100-1000/1000",
            "bytes 100-/1000",
            "bytes -199/1000",
            "bytes +1-2/3",
            "bytes 1-2/99999999999999999999",
            "items 1-2/3",
            "bytes=1-2/3",
            "bytes 1-2/3, 4-5/6",
            "bytes 1 - 2/3",
            "bytes 1-2/3/4",
            "bytes 0-0/0",
            "\u{e9}\u{e9}\u{e9}",
        ] {
            assert_eq!(ContentRange::parse(value), None, "{value}");
        }
    }
}
