//! `Content-Range`, read exactly.

/// `bytes 100-199/1000`: a part of a file of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte, counted from 0.
    pub first: u64,
    /// Last byte, itself part of it.
    pub last: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

/// Most digits of a number: those of the largest that fits 64 bits.
const MOST_DIGITS: usize = 20;

impl ContentRange {
    /// Reads the value of the header. None for anything but one satisfied range of a known length whose parts agree: an
    /// unknown length (`*`), other units and numbers with a sign are no use here.
    pub fn parse(value: &str) -> Option<Self> {
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
    let digits = (1..=MOST_DIGITS).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::ContentRange;

    #[test]
    fn one_range_of_a_known_length() {
        let range = Some(ContentRange { first: 100, last: 199, total: 1000 });
        for value in ["bytes 100-199/1000", " Bytes  100-199/1000 ", "bytes 0100-199/1000"] {
            assert_eq!(ContentRange::parse(value), range, "{value}");
        }
        let whole = format!("bytes 0-{}/{}", u64::MAX - 1, u64::MAX);
        assert_eq!(ContentRange::parse(&whole).unwrap().total, u64::MAX);
    }

    #[test]
    fn anything_else_is_no_range() {
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
