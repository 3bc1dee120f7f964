//! Captions and their images, in the layout of the LAPS caption files.
//!
//! The split `test` is three files in one folder: `test_ids.txt` with one image id per line, `test_caps.txt` with the caption
//! of the same line, and `id_mapping.json` from id to file name, which all splits share. An image has one line per caption,
//! or one line for five consecutive captions. As in the authors' loader, ids are numbers: `007` is the image `7`. Ids that are
//! no numbers are texts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    path::{Component, Path, PathBuf},
};

use laps_files::{decode_text, lines};

use super::{DataError, Tokenizer};

/// The file that maps ids to file names.
pub(crate) const MAPPING: &str = "id_mapping.json";
pub(crate) const IDS: &str = "_ids.txt";
pub(crate) const CAPTIONS: &str = "_caps.txt";

/// Captions of an image in a split that has one id for each image.
const CAPTIONS_PER_ID: usize = 5;

/// The captions of a split and its distinct images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    name: String,
    images: Vec<SplitImage>,
    captions: Vec<String>,
    /// Line of each caption, counted from 1.
    lines: Vec<usize>,
    image_of: Vec<usize>,
    captions_path: PathBuf,
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
        let captions_per_id = captions.len() / ids.len();
        if captions_per_id * ids.len() != captions.len() || ![1, CAPTIONS_PER_ID].contains(&captions_per_id) {
            let [ids, captions] = [ids.len(), captions.len()];
            return Err(DataError::Lengths { ids_path, ids, captions_path, captions });
        }
        let mapping = Mapping::read(&mapping_path)?;

        let mut images: Vec<SplitImage> = Vec::new();
        let mut index = HashMap::new();
        let mut image_of = Vec::with_capacity(captions.len());
        for (row, id) in (1..).zip(ids) {
            let Some((id, name)) = mapping.find(&id) else {
                return Err(DataError::Unmapped { id, row, ids_path, mapping_path });
            };
            let image = *index.entry(id).or_insert(images.len());
            image_of.extend([image; CAPTIONS_PER_ID].iter().take(captions_per_id));
            if image < images.len() {
                continue;
            }
            if !is_inside(name) {
                let (id, name, line) = (id.to_owned(), name.to_owned(), mapping.line(id));
                return Err(DataError::UnsafeName { id, name, line, mapping_path });
            }
            images.push(SplitImage { id: id.to_owned(), name: name.to_owned(), row });
        }
        let lines = (1..=captions.len()).collect();
        Ok(Self { name: name.to_owned(), images, captions, lines, image_of, captions_path })
    }

    /// Token ids of each caption.
    ///
    /// # Errors
    /// [`DataError::CaptionLength`] with file and line of the first caption of more than `max_positions` tokens.
    pub fn tokenize(&self, tokenizer: &Tokenizer, max_positions: usize) -> Result<Vec<Vec<u32>>, DataError> {
        tokenizer.encode_all(&self.captions, max_positions).map_err(|error| match error {
            DataError::CaptionLength { row, tokens, limit, .. } => {
                let path = Some(self.captions_path.clone());
                DataError::CaptionLength { path, row: self.lines[row - 1], tokens, limit }
            }
            other => other,
        })
    }

    /// Truncates to the first `count` images and their captions.
    pub fn limit(mut self, count: NonZeroUsize) -> Self {
        let count = count.get();
        if count >= self.images.len() {
            return self;
        }
        self.images.truncate(count);
        let rows = self.captions.into_iter().zip(self.lines).zip(self.image_of);
        ((self.captions, self.lines), self.image_of) = rows.filter(|&(_, image)| image < count).unzip();
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
    Ok(Mapping::read(&folder.join(MAPPING))?.names.into_values().collect())
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
    let text = read_text(path)?;
    if text.trim().is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    Ok(lines(&text).map(|line| line.trim().to_owned()).collect())
}

/// Reads a text file, without a byte order mark.
fn read_text(path: &Path) -> Result<String, DataError> {
    decode_text(fs_err::read(path)?).map_err(|error| DataError::not_utf8(path, error))
}

/// `id_mapping.json`.
struct Mapping {
    text: String,
    names: BTreeMap<String, String>,
}

impl Mapping {
    fn read(path: &Path) -> Result<Self, DataError> {
        let text = read_text(path)?;
        let names = serde_json::from_str(&text).map_err(|error| DataError::Content {
            path: path.to_owned(),
            expected: "a JSON object from image id to file name".to_owned(),
            found: error.to_string(),
        })?;
        Ok(Self { text, names })
    }

    /// The id in the mapping and the file name of the image that a line of an id file names.
    fn find(&self, id: &str) -> Option<(&str, &str)> {
        let entry = self.names.get_key_value(id).or_else(|| self.names.get_key_value(without_zeros(id)?))?;
        Some((entry.0, entry.1))
    }

    /// The line of an id, counted from 1, if it stands there as it is.
    fn line(&self, id: &str) -> Option<usize> {
        let key = format!("\"{id}\"");
        let is_key = |&(start, _): &(usize, &str)| self.text[start + key.len()..].trim_start().starts_with(':');
        let (start, _) = self.text.match_indices(&key).find(is_key)?;
        Some(lines(&self.text[..start + 1]).count())
    }
}

/// A number without leading zeros; None for other texts.
fn without_zeros(id: &str) -> Option<&str> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = id.trim_start_matches('0');
    Some(if number.is_empty() { "0" } else { number })
}

/// Whether a relative path stays inside the folder that it is joined to.
///
/// This is not [`laps_files::safe_relative_path`]: the files exist already, and data sets of users have names that Windows or
/// an archive would reject, such as names with colons.
pub(crate) fn is_inside(name: &str) -> bool {
    let path = Path::new(name);
    path.file_name().is_some()
        && !name.contains('\0')
        && path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}
