//! The files of the documentation.

use std::path::{Path, PathBuf};

/// README.md and every page of docs/ below `root`.
pub(crate) fn documents(root: &Path) -> Vec<PathBuf> {
    let (mut pages, mut folders) = (vec![root.join("README.md")], vec![root.join("docs/src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|ending| ending == "md") => pages.push(path),
                false => {}
            }
        }
    }
    pages
}
