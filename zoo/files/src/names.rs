//! Checks of file names and paths that come from outside.

use std::path::PathBuf;

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_file_name, safe_relative_path};

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
