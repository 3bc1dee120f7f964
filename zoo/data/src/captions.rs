//! Captions and their images, in the layout of the LAPS caption files.
//!
//! The split `test` is three files in one folder: `test_ids.txt` with one image id per line, `test_caps.txt` with the caption
//! of the same line, and `id_mapping.json` from id to file name, which all splits share. An image has one line per caption.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    path::{Component, Path, PathBuf},
};

use super::DataError;

/// The file that maps ids to file names.
const MAPPING: &str = "id_mapping.json";
const IDS: &str = "_ids.txt";
const CAPTIONS: &str = "_caps.txt";

/// The captions of a split and its distinct images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    name: String,
    images: Vec<SplitImage>,
    captions: Vec<String>,
    image_of: Vec<usize>,
}

/// An image of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitImage {
    /// Its id.
    pub id: String,
    /// Path relative to the image folder.
    pub name: String,
    /// First row of the id file with this image, counted from 1.
    pub row: usize,
}

/// An image and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// The image.
    pub image: SplitImage,
    /// The file.
    pub path: PathBuf,
}

impl Split {
    /// Reads the split `name` in `folder` and checks that its files are consistent.
    pub fn open(folder: &Path, name: &str) -> Result<Self, DataError> {
        let [ids_path, captions_path] = [IDS, CAPTIONS].map(|end| folder.join(format!("{name}{end}")));
        let mapping_path = folder.join(MAPPING);
        for path in [&ids_path, &captions_path] {
            if !path.is_file() {
                return Err(missing(folder, name, path));
            }
        }
        let ids = rows(&ids_path)?;
        let captions = rows(&captions_path)?;
        if ids.len() != captions.len() {
            let [ids, captions] = [ids.len(), captions.len()];
            return Err(DataError::Lengths { ids_path, ids, captions_path, captions });
        }
        let mapping = mapping(&mapping_path)?;

        let mut images: Vec<SplitImage> = Vec::new();
        let mut index = HashMap::new();
        let mut image_of = Vec::with_capacity(ids.len());
        for (row, id) in (1..).zip(ids) {
            if let Some(&known) = index.get(&id) {
                image_of.push(known);
                continue;
            }
            let Some(name) = mapping.get(&id) else {
                return Err(DataError::Unmapped { id, row, ids_path, mapping_path });
            };
            if !is_inside(name) {
                return Err(DataError::UnsafeName { id, name: name.clone(), mapping_path });
            }
            index.insert(id.clone(), images.len());
            image_of.push(images.len());
            images.push(SplitImage { id, name: name.clone(), row });
        }
        Ok(Self { name: name.to_owned(), images, captions, image_of })
    }

    /// Truncates to the first `count` images and their captions.
    pub fn limit(mut self, count: NonZeroUsize) -> Self {
        let count = count.get();
        if count >= self.images.len() {
            return self;
        }
        self.images.truncate(count);
        let kept = self.captions.into_iter().zip(self.image_of).filter(|&(_, image)| image < count);
        (self.captions, self.image_of) = kept.unzip();
        self
    }

    /// Name of the split.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The distinct images, in the order of their first row.
    pub fn images(&self) -> &[SplitImage] {
        &self.images
    }

    /// The captions in the order of their file, without surrounding white space.
    pub fn captions(&self) -> &[String] {
        &self.captions
    }

    /// The index of the image of each caption in [`images`](Self::images).
    pub fn image_of(&self) -> &[usize] {
        &self.image_of
    }

    /// The images as files in the folder `root`. Does not check that they exist.
    pub fn image_files(&self, root: &Path) -> Vec<ImageFile> {
        self.images.iter().map(|image| ImageFile { image: image.clone(), path: root.join(&image.name) }).collect()
    }
}

/// The splits in `folder`, by name.
pub fn splits(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ids = names.filter_map(|name| name.strip_suffix(IDS).map(str::to_owned));
    let mut splits: Vec<String> = ids.filter(|name| folder.join(format!("{name}{CAPTIONS}")).is_file()).collect();
    splits.sort();
    splits
}

/// The file names in the mapping of `folder`.
pub(super) fn image_names(folder: &Path) -> Result<BTreeSet<String>, DataError> {
    Ok(mapping(&folder.join(MAPPING))?.into_values().collect())
}

fn missing(folder: &Path, name: &str, path: &Path) -> DataError {
    DataError::Split {
        folder: folder.to_owned(),
        name: name.to_owned(),
        missing: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        available: splits(folder),
    }
}

/// The lines of a text file, without surrounding white space. A line may be empty, the file may not.
pub fn rows(path: &Path) -> Result<Vec<String>, DataError> {
    let bytes = fs_err::read(path)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        DataError::Content {
            path: path.to_owned(),
            expected: "text in UTF-8".to_owned(),
            found: format!("other bytes in row {}", before.iter().filter(|&&byte| byte == b'\n').count() + 1),
        }
    })?;
    if text.trim().is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

fn mapping(path: &Path) -> Result<BTreeMap<String, String>, DataError> {
    serde_json::from_slice(&fs_err::read(path)?).map_err(|error| DataError::Content {
        path: path.to_owned(),
        expected: "a JSON object from image id to file name".to_owned(),
        found: error.to_string(),
    })
}

/// Whether a relative path stays inside the folder that it is joined to.
///
/// This is not [`laps_files::safe_relative_path`]: the files exist already, and data sets of users have names that Windows or
/// an archive would reject, such as names with colons.
fn is_inside(name: &str) -> bool {
    let path = Path::new(name);
    path.file_name().is_some()
        && !name.contains('\0')
        && path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}
