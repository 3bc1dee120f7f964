//! The images of a folder.

use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{Item, SearchError};
use crate::{Error, Result};

/// Endings of the formats that can be read.
const ENDINGS: [&str; 6] = ["bmp", "gif", "jpeg", "jpg", "png", "webp"];

/// The images below `folder` by their endings, in the order of their names, and where each lies. Hidden files and folders
/// are left out, and so are folders that are links.
///
/// # Errors
/// [`SearchError::Empty`] if there is none, [`Error::Io`] for a folder that can not be read.
pub fn images_in(folder: &Path) -> Result<Vec<(Item, PathBuf)>> {
    let mut found = Vec::new();
    let mut others = 0;
    walk(folder, folder, &mut found, &mut others)?;
    if found.is_empty() {
        return Err(SearchError::Empty {
            path: folder.to_owned(),
            expected: format!("files that end in {}", ENDINGS.map(|ending| format!("`.{ending}`")).join(", ")),
            found: format!("{others} other files"),
        }
        .into());
    }
    found.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    Ok(found)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<(Item, PathBuf)>, others: &mut usize) -> Result<()> {
    let failed = |source| Error::Io { action: "read", path: folder.to_owned(), source };
    for entry in fs_err::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            walk(root, &path, found, others)?;
        } else if !path.is_dir() {
            let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
            if !ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
                *others += 1;
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push((Item { name, stamp: stamp(&path) }, path));
        }
    }
    Ok(())
}

/// Size and time of modification of a file; None where the system does not tell.
fn stamp(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs_err::metadata(path).ok()?;
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((metadata.len(), u64::try_from(since.as_nanos()).ok()?))
}

/// The captions in the text files that lie beside images, `a.txt` beside `a.jpg`, one a line; empty lines are left out.
///
/// # Errors
/// [`data::DataError`] for a file that can not be read as text.
pub fn captions_beside(images: &[(Item, PathBuf)]) -> Result<Vec<String>> {
    let mut captions = Vec::new();
    for (_, path) in images {
        let path = path.with_extension("txt");
        if path.is_file() {
            captions.extend(laps_data::rows(&path)?.into_iter().filter(|caption| !caption.is_empty()));
        }
    }
    Ok(captions)
}
