//! Image files of a folder, and the caption files next to them.

use std::{
    fs::{self, FileType},
    io,
    path::{Path, PathBuf},
};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use laps_data::{
    DataError,
    image::{ExtensionKind, READABLE_EXTENSIONS},
};
use laps_files::{IoError, irregular, path_to_text};
use serde::{Deserialize, Serialize};

use super::{FileStamp, IndexItem, SearchError};
use crate::{Error, Result};

/// Maximum number of skipped files that an error lists.
const LISTED: usize = 8;

/// A file, a folder or a caption that was not used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SkippedItem {
    /// Its path as [`path_to_text`] writes it; relative to the folder if the folder was searched.
    pub name: String,
    /// Line of the caption in the file, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The fault.
    pub reason: String,
}

/// An image that was decoded in part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DamagedImage {
    /// Its path as [`path_to_text`] writes it; relative to the folder if the folder was searched.
    pub name: String,
    /// The decoder's warning.
    pub warning: String,
}

/// A caption and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionLine {
    /// The file as [`path_to_text`] writes it.
    pub file: String,
    /// Line of the file, counted from 1.
    pub line: usize,
    /// The caption.
    pub text: String,
}

/// Files and folders that a folder is searched without.
///
/// A glob without a slash is compared with the name of each file and folder, one with a slash with the path relative to the
/// folder. `*` and `?` do not match a slash, `**` matches any number of folders. A folder that matches is not searched.
#[derive(Clone, Debug, Default)]
pub struct Exclusions(GlobSet);

impl Exclusions {
    /// Parses globs.
    ///
    /// # Errors
    /// [`SearchError::Option`] for an invalid one.
    pub fn new(globs: &[String]) -> Result<Self, SearchError> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(parse(glob).map_err(|error| SearchError::Option {
                option: "exclude",
                expected: "a glob, such as `*.png`, `thumbnails` or `2019/**/raw`",
                found: format!("`{glob}`: {}", error.kind()),
            })?);
        }
        let set = set.build().map_err(|error| SearchError::Option {
            option: "exclude",
            expected: "globs that fit into memory together",
            found: error.kind().to_string(),
        })?;
        Ok(Self(set))
    }
}

fn parse(glob: &str) -> Result<Glob, globset::Error> {
    let glob = glob.strip_prefix("./").unwrap_or(glob);
    let glob = glob.strip_suffix('/').unwrap_or(glob);
    let relative = match glob.strip_prefix('/') {
        Some(anchored) => anchored.to_owned(),
        None if glob.contains('/') => glob.to_owned(),
        None => format!("**/{glob}"),
    };
    GlobBuilder::new(&relative).literal_separator(true).build()
}

/// The images below a folder.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    /// The folder.
    pub path: PathBuf,
    /// Images by file extension, sorted by name, with the path of each.
    pub images: Vec<(IndexItem, PathBuf)>,
    /// Files and folders that cannot be used, sorted by name.
    pub skipped: Vec<SkippedItem>,
}

impl ImageFolder {
    /// Lists the images below `path`. Hidden files and folders are ignored. Folders that cannot be read, links to folders,
    /// and FIFOs, sockets and devices with the name of an image are skipped and listed.
    ///
    /// # Errors
    /// [`SearchError::Empty`] if there is no image, [`Error::Io`] if `path` itself cannot be read.
    pub fn list(path: &Path, exclusions: &Exclusions) -> Result<Self> {
        let mut walk = FolderWalk { root: path, exclusions, images: Vec::new(), skipped: Vec::new(), other_files: 0 };
        walk.folder(path).map_err(|source| Error::Io(IoError::new("read", path, source)))?;
        let FolderWalk { mut images, mut skipped, other_files, .. } = walk;
        skipped.sort();
        if images.is_empty() {
            let extensions = READABLE_EXTENSIONS.map(|extension| format!("`.{extension}`")).join(", ");
            let mut found = format!("{other_files} other files");
            for SkippedItem { name, reason, .. } in skipped.iter().take(LISTED) {
                found += &format!("\n  skipped: `{name}`: {reason}");
            }
            if skipped.len() > LISTED {
                found += &format!("\n  and {} more", skipped.len() - LISTED);
            }
            let expected = format!("files that end in {extensions}");
            return Err(SearchError::Empty { path: path.to_owned(), expected, found }.into());
        }
        images.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        Ok(Self { path: path.to_owned(), images, skipped })
    }

    /// Reads the captions of the text files next to images: `a.txt` for `a.jpg`, one caption a line. Also returns the files
    /// without a caption, those that cannot be read as text, and FIFOs, sockets and devices. Empty lines are ignored.
    pub fn sidecar_captions(&self) -> (Vec<CaptionLine>, Vec<SkippedItem>) {
        let (mut captions, mut skipped) = (Vec::new(), Vec::new());
        for (_, path) in &self.images {
            let path = path.with_extension("txt");
            let found = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => continue,
                Ok(metadata) => match irregular(metadata.file_type()) {
                    Some(reason) => Err(reason.to_owned()),
                    None => caption_lines(&path).map_err(|error| match error {
                        DataError::Empty { .. } => "it has no caption".to_owned(),
                        error => error.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; "),
                    }),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(format!("cannot be read: {error}")),
            };
            match found {
                Ok(lines) => {
                    let file = self.name(&path);
                    captions.extend(lines.into_iter().map(|line| CaptionLine { file: file.clone(), ..line }));
                }
                Err(reason) => skipped.push(SkippedItem { name: self.name(&path), line: None, reason }),
            }
        }
        // `a.jpg` and `a.png` have the same text file.
        skipped.dedup();
        (captions, skipped)
    }

    fn name(&self, path: &Path) -> String {
        path_to_text(path.strip_prefix(&self.path).unwrap_or(path))
    }
}

/// The captions of a file, one a line, without empty lines.
///
/// # Errors
/// [`DataError`] if the file cannot be read as text, or has no caption.
pub fn caption_lines(path: &Path) -> Result<Vec<CaptionLine>, DataError> {
    let file = path_to_text(path);
    let lines = (1..).zip(laps_data::rows(path)?).filter(|(_, text)| !text.is_empty());
    Ok(lines.map(|(line, text)| CaptionLine { file: file.clone(), line, text }).collect())
}

struct FolderWalk<'a> {
    root: &'a Path,
    exclusions: &'a Exclusions,
    images: Vec<(IndexItem, PathBuf)>,
    skipped: Vec<SkippedItem>,
    other_files: usize,
}

impl FolderWalk<'_> {
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        // Without `fs_err`: whoever gets the error names the folder.
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let below = path.strip_prefix(self.root).unwrap_or(&path);
            if entry.file_name().as_encoded_bytes().starts_with(b".") || self.exclusions.0.is_match(below) {
                continue;
            }
            if let Err(reason) = self.entry(&path, entry.file_type()?) {
                self.skipped.push(SkippedItem { name: path_to_text(below), line: None, reason });
            }
        }
        Ok(())
    }

    /// Adds a file, or the files of a folder. The error is the reason to skip it.
    fn entry(&mut self, path: &Path, kind: FileType) -> Result<(), String> {
        if kind.is_dir() {
            return self.folder(path).map_err(|error| format!("the folder cannot be read: {error}"));
        }
        let target = fs::metadata(path);
        if target.as_ref().is_ok_and(fs::Metadata::is_dir) {
            return Err("links to folders are not followed".to_owned());
        }
        // The content decides the format, so photos of unknown formats are skipped by name when they are decoded.
        if ExtensionKind::of(path) == ExtensionKind::Other {
            self.other_files += 1;
            return Ok(());
        }
        let target = target.map_err(|error| format!("cannot be read: {error}"))?;
        if let Some(reason) = irregular(target.file_type()) {
            return Err(reason.to_owned());
        }
        let name = path_to_text(path.strip_prefix(self.root).unwrap_or(path));
        self.images.push((IndexItem { name, stamp: FileStamp::of(&target) }, path.to_owned()));
        Ok(())
    }
}
