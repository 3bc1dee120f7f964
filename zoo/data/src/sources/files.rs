//! Finds the files of a source.

use std::{
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use globset::GlobBuilder;
use laps_files::sha256_hex;

use super::{Source, SourceKind};
use crate::DataError;

/// Increased whenever the same source gives other caption files or another description of them.
const EDITION: u32 = 2;

/// The files that `wanted` names below `root`: paths, or globs whose files are sorted.
pub(super) fn find(kind: SourceKind, root: &Path, wanted: &[String]) -> Result<Vec<PathBuf>, DataError> {
    let missing = |expected: String| DataError::SourceFiles { kind, folder: root.to_owned(), expected };
    if wanted.is_empty() {
        for pattern in kind.patterns() {
            let files = glob(root, pattern)?;
            if !files.is_empty() {
                return Ok(files);
            }
        }
        return Err(missing(kind.patterns().join("`, `")));
    }
    let mut files = Vec::new();
    for pattern in wanted {
        let path = root.join(pattern);
        let found = if path.exists() { vec![path] } else { glob(root, pattern)? };
        if found.is_empty() {
            return Err(missing(pattern.clone()));
        }
        files.extend(found);
    }
    Ok(files)
}

fn glob(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let special = |component: &str| component.contains(['*', '?', '[', '{']);
    if !special(pattern) {
        let path = root.join(pattern);
        return Ok(if path.is_file() { vec![path] } else { Vec::new() });
    }
    let invalid = |error: globset::Error| super::unusable(root, "a valid glob", error.to_string());
    let matcher = GlobBuilder::new(pattern).literal_separator(true).build().map_err(invalid)?.compile_matcher();
    // The walk starts in the folder before the first component with a wildcard.
    let components: Vec<&str> = pattern.split('/').collect();
    let literal = components.iter().take_while(|component| !special(component)).count();
    let start = if literal == 0 { String::new() } else { components[..literal].join("/") + "/" };
    let mut files = Vec::new();
    walk(&root.join(&start), &mut |path, below| {
        if matcher.is_match(Path::new(&start).join(below)) {
            files.push(path);
        }
    })?;
    files.sort();
    Ok(files)
}

/// Calls `visit` with the path of each file below `folder`, and the path relative to it. Links to folders are not followed.
pub(super) fn walk(folder: &Path, visit: &mut dyn FnMut(PathBuf, &Path)) -> Result<(), DataError> {
    let mut waiting = vec![(folder.to_owned(), PathBuf::new())];
    while let Some((folder, below)) = waiting.pop() {
        let entries = match fs_err::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let below = below.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => waiting.push((entry.path(), below)),
                false => visit(entry.path(), &below),
            }
        }
    }
    Ok(())
}

/// The path of a file relative to the image folder as the name of an image, with `/`. `None` if it is not UTF-8, because
/// imported names are texts.
pub(super) fn image_name(below: &Path) -> Option<String> {
    Some(below.to_str()?.replace(std::path::MAIN_SEPARATOR, "/"))
}

/// The folder of images, where none is given.
pub(super) fn image_folder(kind: SourceKind, root: &Path, files: &[PathBuf]) -> PathBuf {
    let beside = files.first().and_then(|file| file.parent()).unwrap_or(root);
    let candidates: &[&str] = match kind {
        SourceKind::Folder => return files.first().map_or_else(|| root.to_owned(), Clone::clone),
        // Kaggle's archive has the folder `flickr30k_images` in `flickr30k_images`, next to `results.csv`.
        SourceKind::Kaggle => &["flickr30k_images", "images"],
        SourceKind::Dci => return beside.with_file_name("photos"),
        SourceKind::Urban1k => return beside.with_file_name("image"),
        // Its names begin with the data set that an image comes from, as in `coco/train2017`.
        SourceKind::Sharegpt4v => return beside.to_owned(),
        _ => &["images", "flickr30k-images", "flickr30k_images", "coco-images"],
    };
    let folders = [root, beside].into_iter().flat_map(|folder| candidates.iter().map(move |name| folder.join(name)));
    match kind {
        SourceKind::Kaggle => {
            let nested = candidates.iter().map(|name| beside.join(name)).find(|folder| folder.is_dir());
            nested.unwrap_or_else(|| beside.to_owned())
        }
        _ => folders.clone().find(|folder| folder.is_dir()).unwrap_or_else(|| root.to_owned()),
    }
}

pub(super) fn identity(source: &Source) -> Result<String, DataError> {
    let mut text = format!("{EDITION} {} {:?} {}\n", source.kind, source.names, source.max_captions);
    let mut add = |path: &Path| -> io::Result<()> {
        let metadata = fs_err::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = std::path::absolute(path)?;
        text += &format!("{:?} {} {modified}\n", path, metadata.len());
        Ok(())
    };
    for file in &source.files {
        add(file)?;
        if file.is_dir() {
            let mut files = Vec::new();
            walk(file, &mut |path, _| files.push(path))?;
            files.sort();
            files.iter().try_for_each(|file| add(file))?;
        }
    }
    if source.kind == SourceKind::Dci
        && let Some(list) = super::dci::split_list(source)
    {
        add(&list)?;
    }
    for path in source.splits.iter() {
        add(path)?;
        if path.is_dir() {
            super::split_list::files(path)?.iter().try_for_each(|(_, file)| add(file))?;
        }
    }
    // Names of images may depend on the folders of the image folder.
    text += &format!("{:?}\n", std::path::absolute(&source.images)?);
    Ok(sha256_hex(text.as_bytes()))
}
