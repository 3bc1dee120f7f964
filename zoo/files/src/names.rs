//! Checks of file names and paths that come from outside, and paths as text.

use std::path::{Path, PathBuf};

/// Maximum length of a path component in bytes, the limit of common file systems.
const MAX_COMPONENT_BYTES: usize = 255;

/// Maximum number of path components. The deepest known path has two: `train2014/COCO_train2014_000000000009.jpg`.
const MAX_COMPONENTS: usize = 8;

/// Windows device names, reserved with any extension. A data folder may lie on a disk that Windows reads.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// The path `name`, whose components are separated by `/`, if it stays below any folder that it is joined to; otherwise
/// `None`.
///
/// Rejected are absolute paths, `.` and `..`, empty components, backslashes, colons, control characters, Windows device
/// names, and components that end with a dot or a space, which Windows drops.
///
/// ```
/// use std::path::Path;
/// use laps_files::safe_relative_path;
///
/// assert_eq!(safe_relative_path("images/1.jpg").as_deref(), Some(Path::new("images/1.jpg")));
/// assert_eq!(safe_relative_path("images/../../1.jpg"), None);
/// assert_eq!(safe_relative_path("/etc/passwd"), None);
/// ```
pub fn safe_relative_path(name: &str) -> Option<PathBuf> {
    let components: Vec<&str> = name.split('/').collect();
    let is_safe = components.len() <= MAX_COMPONENTS && components.iter().all(|name| is_file_name(name));
    is_safe.then(|| components.iter().collect())
}

/// Whether `name` is a single path component that [`safe_relative_path`] accepts.
pub fn is_file_name(name: &str) -> bool {
    let is_plain = |letter: char| !letter.is_control() && !"/\\:".contains(letter);
    let is_short = (1..=MAX_COMPONENT_BYTES).contains(&name.len());
    is_short && name.chars().all(is_plain) && !name.ends_with(['.', ' ']) && !is_device(name)
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let is_numbered = |kind: &str| stem.strip_prefix(kind).is_some_and(|rest| rest.chars().count() == 1);
    DEVICES.contains(&stem.as_str()) || is_numbered("COM") || is_numbered("LPT")
}

/// `path` as text that is unique to it, for JSON, CSV and HTML. A path is bytes and need not be UTF-8: a byte that is not
/// part of a UTF-8 character is written `\xHH` with two lower-case hexadecimal digits, and a backslash `\\`.
/// [`text_to_path`] is the inverse.
///
/// ```
/// use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};
/// use laps_files::{path_to_text, text_to_path};
///
/// let path = Path::new(OsStr::from_bytes(b"photos/\xffone.png"));
/// assert_eq!(path_to_text(path), r"photos/\xffone.png");
/// assert_eq!(text_to_path(r"photos/\xffone.png"), path);
/// ```
#[cfg(unix)]
pub fn path_to_text(path: &Path) -> String {
    use std::{fmt::Write, os::unix::ffi::OsStrExt};
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, r"\x{byte:02x}");
        }
    }
    text
}

/// The path that [`path_to_text`] wrote as `text`. A backslash that begins neither of the two escapes stands for itself.
#[cfg(unix)]
pub fn text_to_path(text: &str) -> PathBuf {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', b'x', high, low, after @ ..] if let Some(byte) = hex_byte(*high, *low) => {
                bytes.push(byte);
                after
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(unix)]
fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |letter: u8| char::from(letter).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// `path` as text. Other systems have paths in Unicode, with backslashes as separators.
#[cfg(not(unix))]
pub fn path_to_text(path: &Path) -> String {
    path.display().to_string()
}

/// The path that [`path_to_text`] wrote as `text`.
#[cfg(not(unix))]
pub fn text_to_path(text: &str) -> PathBuf {
    text.into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_file_name, safe_relative_path};

    /// Every sequence of up to three bytes from an alphabet that has the escapes in it.
    #[cfg(unix)]
    #[test]
    fn paths_of_any_bytes_survive_as_distinct_text() {
        use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt};

        use super::{path_to_text, text_to_path};

        let alphabet = [&b"a"[..], b"\\", b"x", b"ff", b"\xff", b"\xfe", b"\xc3", b"\xa9", b"\xc3\xa9", b"\n"];
        let mut names: BTreeSet<Vec<u8>> = BTreeSet::from([Vec::new()]);
        for _ in 0..3 {
            let longer: Vec<_> =
                names.iter().flat_map(|name| alphabet.map(|piece| [name.as_slice(), piece].concat())).collect();
            names.extend(longer);
        }
        let mut texts = BTreeSet::new();
        for name in &names {
            let path = Path::new(OsStr::from_bytes(name));
            let text = path_to_text(path);
            assert_eq!(text_to_path(&text), path, "{text}");
            texts.insert(text);
        }
        assert_eq!(texts.len(), names.len());
        // Names without a backslash that are UTF-8 stay as they are, and a text of another program is left alone.
        assert_eq!(path_to_text(Path::new("Bücher/1.jpg")), "Bücher/1.jpg");
        assert_eq!(text_to_path(r"a\b\xzz\x"), Path::new(r"a\b\xzz\x"));
    }

    #[test]
    fn relative_paths_are_accepted() {
        for name in ["a.jpg", "train2014/COCO_train2014_000000000009.jpg", "a/b/c", "..a", "com", "console.txt", "a b"]
        {
            assert_eq!(safe_relative_path(name).as_deref(), Some(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn absolute_parent_and_reserved_paths_are_rejected() {
        for name in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "..",
            ".",
            "a\\b",
            "C:\\a",
            "C:a",
            "a\0",
            "a\nb",
            "NUL",
            "nul.txt",
            "a/con",
            "COM1",
            "lpt9.jpg",
            "a.",
            "a ",
            "com\u{b9}",
            "1/2/3/4/5/6/7/8/9",
        ] {
            assert_eq!(safe_relative_path(name), None, "{name:?}");
        }
        assert!(!is_file_name(&"a".repeat(256)));
        assert!(!is_file_name("a/b"));
    }
}
