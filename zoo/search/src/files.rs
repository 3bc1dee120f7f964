//! Image files of a folder, and the caption files next to them.

use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{IndexItem, SearchError};
use crate::{Error, Result};

/// File extensions of the formats that can be decoded.
const EXTENSIONS: [&str; 6] = ["bmp", "gif", "jpeg", "jpg", "png", "webp"];

/// Lists the images below `folder` by file extension, sorted by name, with the path of each. Hidden files, hidden folders
/// and links to folders are skipped.
///
/// # Errors
/// [`SearchError::Empty`] if there is no image, [`Error::Io`] if a folder cannot be read.
pub fn list_images(folder: &Path) -> Result<Vec<(IndexItem, PathBuf)>> {
    let mut images = Vec::new();
    let mut other_files = 0;
    walk(folder, folder, &mut images, &mut other_files)?;
    if images.is_empty() {
        let extensions = EXTENSIONS.map(|extension| format!("`.{extension}`")).join(", ");
        return Err(SearchError::Empty {
            path: folder.to_owned(),
            expected: format!("files that end in {extensions}"),
            found: format!("{other_files} other files"),
        }
        .into());
    }
    images.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    Ok(images)
}

fn walk(root: &Path, folder: &Path, images: &mut Vec<(IndexItem, PathBuf)>, other_files: &mut usize) -> Result<()> {
    let failed = |source| Error::Io { action: "read", path: folder.to_owned(), source };
    for entry in fs_err::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let file_type = entry.file_type().map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if file_type.is_dir() {
            walk(root, &path, images, other_files)?;
        } else if !path.is_dir() {
            let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
            if !extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
                *other_files += 1;
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            images.push((IndexItem { name, stamp: stamp(&path) }, path));
        }
    }
    Ok(())
}

/// Size and modification time of a file; None if the system does not report them.
fn stamp(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs_err::metadata(path).ok()?;
    let since_epoch = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((metadata.len(), u64::try_from(since_epoch.as_nanos()).ok()?))
}

/// Reads the captions of the text files next to images: `a.txt` for `a.jpg`, one caption a line. Empty lines are skipped.
///
/// # Errors
/// [`DataError`](laps_data::DataError) if a file cannot be read as text.
pub fn sidecar_captions(images: &[(IndexItem, PathBuf)]) -> Result<Vec<String>> {
    let mut captions = Vec::new();
    for (_, path) in images {
        let path = path.with_extension("txt");
        if path.is_file() {
            captions.extend(laps_data::rows(&path)?.into_iter().filter(|caption| !caption.is_empty()));
        }
    }
    Ok(captions)
}
