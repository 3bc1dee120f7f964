//! The browser of tests.

use std::path::PathBuf;

/// Names of its programs.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// The browser; prints a note and returns `None` if it is not installed.
pub(crate) fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let program =
        NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file());
    if program.is_none() {
        println!("skipped: Chromium is not installed (Debian package `chromium`)");
    }
    program
}
