//! Names of files that come from outside.

use std::path::PathBuf;

/// Longest part of a path in bytes, the limit of the usual file systems.
const LONGEST_PART: usize = 255;

/// Most parts of a path. The deepest that is known has two: `train2014/COCO_train2014_000000000009.jpg`.
const MOST_PARTS: usize = 8;

/// Names that stand for devices on Windows, with any ending; a data folder may lie on a disk that is read there.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// `name`, with `/` between its parts, as a path that stays below the folder that it is joined to; None for any other.
///
/// Refused are absolute paths, `.` and `..`, empty parts, backslashes, colons, control characters, names of devices, and
/// parts that end with a dot or a space, which Windows drops.
pub fn inside(name: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = name.split('/').collect();
    (parts.len() <= MOST_PARTS && parts.iter().all(|part| is_file_name(part))).then(|| parts.iter().collect())
}

/// Whether `name` can be that of a file in a folder.
pub fn is_file_name(name: &str) -> bool {
    let plain = |letter: char| !letter.is_control() && !"/\\:".contains(letter);
    let is_short = (1..=LONGEST_PART).contains(&name.len());
    is_short && name.chars().all(plain) && !name.ends_with(['.', ' ']) && !is_device(name)
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let numbered = |kind: &str| stem.strip_prefix(kind).is_some_and(|rest| rest.chars().count() == 1);
    DEVICES.contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{inside, is_file_name};

    #[test]
    fn paths_inside_are_kept() {
        for name in ["a.jpg", "train2014/COCO_train2014_000000000009.jpg", "a/b/c", "..a", "com", "console.txt", "a b"]
        {
            assert_eq!(inside(name).as_deref(), Some(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn paths_that_lead_out_or_mean_something_else_are_refused() {
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
            assert_eq!(inside(name), None, "{name:?}");
        }
        assert!(!is_file_name(&"a".repeat(256)));
        assert!(!is_file_name("a/b"));
    }
}
