//! Captions and their images, in the layout of the LAPS caption files.
//!
//! The split `test` is three files in one folder: `test_ids.txt` with one image id per line, `test_caps.txt` with the caption
//! of the same line, and `id_mapping.json` from id to file name, which all splits share. An image has one line per caption,
//! or one line for five consecutive captions. As in the authors' loader, ids are numbers: `007` is the image `7`. Ids that are
//! no numbers are texts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fmt, io,
    num::NonZeroUsize,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use laps_files::{decode_text, lines, path_to_text, read_regular};
use serde::{Deserialize, Deserializer, de};

use super::{CaptionError, CaptionFault, DataError, FileLine, MappingFault, Tokenizer, UnusableData};

/// The file that maps ids to file names.
pub(crate) const MAPPING: &str = "id_mapping.json";
pub(crate) const IDS: &str = "_ids.txt";
pub(crate) const CAPTIONS: &str = "_caps.txt";

/// `[CLS]` and `[SEP]`, which every caption has.
const SPECIAL_TOKENS: usize = 2;

/// Captions of an image in a split that has one id for each image.
const CAPTIONS_PER_ID: usize = 5;

/// The captions of a split and its distinct images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    name: String,
    images: Vec<SplitImage>,
    /// Path of each image relative to the image folder.
    files: Vec<PathBuf>,
    captions: Vec<String>,
    /// Line of each caption, counted from 1.
    lines: Vec<usize>,
    image_of: Vec<usize>,
    captions_path: Arc<Path>,
}

/// An image of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitImage {
    /// Its id.
    pub id: String,
    /// Path relative to the image folder, as [`path_to_text`] writes it.
    pub name: String,
    /// First line of the file of ids with this image.
    pub line: FileLine,
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

        let (mut images, mut files, mut faults) = (Vec::<SplitImage>::new(), Vec::new(), Vec::new());
        let mut index = HashMap::new();
        let mut image_of = Vec::with_capacity(captions.len());
        let ids_file: Arc<Path> = ids_path.as_path().into();
        for (line, id) in (1..).zip(ids) {
            let Some((id, name)) = mapping.find(&id) else {
                faults.push(MappingFault::Unmapped { id, line });
                continue;
            };
            let image = *index.entry(id).or_insert(images.len());
            image_of.extend([image; CAPTIONS_PER_ID].iter().take(captions_per_id));
            if image < images.len() {
                continue;
            }
            let file = name.path();
            if file.as_deref().is_none_or(|file| !is_inside(file)) {
                faults.push(MappingFault::UnsafeName { id: id.to_owned(), name: name.text(), line: mapping.line(id) });
            }
            files.push(file.unwrap_or_default());
            let line = FileLine { file: Some(Arc::clone(&ids_file)), line };
            images.push(SplitImage { id: id.to_owned(), name: name.text(), line });
        }
        if !faults.is_empty() {
            return Err(DataError::Mapping { faults, ids_path, mapping_path });
        }
        let lines = (1..=captions.len()).collect();
        let captions_path = captions_path.into();
        Ok(Self { name: name.to_owned(), images, files, captions, lines, image_of, captions_path })
    }

    /// Token ids of each caption.
    ///
    /// # Errors
    /// [`DataError::Unusable`] with file and line of every caption that is empty or has more than `max_positions` tokens.
    pub fn tokenize(&self, tokenizer: &Tokenizer, max_positions: usize) -> Result<Vec<Vec<u32>>, DataError> {
        let encoded = tokenizer.encode_each(&self.captions, max_positions)?;
        self.refuse(encoded.iter().map(|tokens| match tokens.len() {
            0..=SPECIAL_TOKENS => Some(CaptionError::Empty),
            count => CaptionError::of_length(count, max_positions),
        }))?;
        Ok(encoded)
    }

    /// Checks that no caption is empty.
    ///
    /// # Errors
    /// [`DataError::Unusable`] with file and line of every caption that is.
    pub fn check_captions(&self) -> Result<(), DataError> {
        self.refuse(self.captions.iter().map(|caption| caption.is_empty().then_some(CaptionError::Empty)))
    }

    /// Fails if captions have faults.
    fn refuse(&self, causes: impl Iterator<Item = Option<CaptionError>>) -> Result<(), DataError> {
        let faults: Vec<CaptionFault> = causes
            .zip(&self.lines)
            .filter_map(|(cause, &line)| {
                Some(CaptionFault {
                    line: FileLine { file: Some(Arc::clone(&self.captions_path)), line },
                    cause: cause?,
                })
            })
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        let data = UnusableData { captions: self.captions.len(), caption_faults: faults, ..UnusableData::default() };
        Err(DataError::Unusable(data.into()))
    }

    /// The split with each caption replaced by what `text` makes of its number and its text.
    #[must_use]
    pub fn map_captions(mut self, mut text: impl FnMut(usize, &str) -> String) -> Self {
        for (index, caption) in self.captions.iter_mut().enumerate() {
            *caption = text(index, caption);
        }
        self
    }

    /// Truncates to the first `count` images and their captions.
    pub fn limit(mut self, count: NonZeroUsize) -> Self {
        let count = count.get();
        if count >= self.images.len() {
            return self;
        }
        self.images.truncate(count);
        self.files.truncate(count);
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
        let file = |(image, file): (&SplitImage, &PathBuf)| ImageFile { image: image.clone(), path: root.join(file) };
        self.images.iter().zip(&self.files).map(file).collect()
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

/// The paths in the mapping of `folder`.
pub(super) fn image_paths(folder: &Path) -> Result<BTreeSet<PathBuf>, DataError> {
    Ok(Mapping::read(&folder.join(MAPPING))?.names.values().filter_map(MappedName::path).collect())
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
    names: BTreeMap<MappedName, MappedName>,
}

/// A text of the mapping: UTF-8, and surrogates without their other half as three bytes each. Python writes them for file
/// names that are not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MappedName(Vec<u8>);

impl MappedName {
    /// The path as Python encodes it: the surrogates U+DC80 to U+DCFF stand for bytes. None with other surrogates, for which
    /// Python has no path.
    fn path(&self) -> Option<PathBuf> {
        let mut bytes = Vec::with_capacity(self.0.len());
        let mut rest = self.0.as_slice();
        while let Some(chunk) = rest.utf8_chunks().next() {
            bytes.extend_from_slice(chunk.valid().as_bytes());
            rest = &rest[chunk.valid().len()..];
            rest = match rest {
                [0xed, 0xb2, low @ 0x80..=0xbf, after @ ..] => {
                    bytes.push(*low);
                    after
                }
                [0xed, 0xb3, low @ 0x80..=0xbf, after @ ..] => {
                    bytes.push(low | 0x40);
                    after
                }
                [] => break,
                _ => return None,
            };
        }
        path_of(bytes)
    }

    /// The path as [`path_to_text`] writes it.
    fn text(&self) -> String {
        self.path().map_or_else(|| String::from_utf8_lossy(&self.0).into_owned(), |path| path_to_text(&path))
    }
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(OsString::from_vec(bytes).into())
}

/// Other systems have paths in Unicode.
#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(|text| OsString::from(text).into())
}

impl<'de> Deserialize<'de> for MappedName {
    /// As bytes, for which JSON may have any surrogates.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(MappedNameVisitor)
    }
}

struct MappedNameVisitor;

impl de::Visitor<'_> for MappedNameVisitor {
    type Value = MappedName;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<MappedName, E> {
        Ok(MappedName(bytes.to_owned()))
    }
}

impl Mapping {
    fn read(path: &Path) -> Result<Self, DataError> {
        let bytes = read_regular(path)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot read `{}`: {error}", path.display())))?;
        let text = decode_text(bytes).map_err(|error| DataError::not_utf8(path, error))?;
        let names = serde_json::from_str(&text).map_err(|error| DataError::Content {
            path: path.to_owned(),
            expected: "a JSON object from image id to file name".to_owned(),
            found: error.to_string(),
        })?;
        Ok(Self { text, names })
    }

    /// The id in the mapping and the file name of the image that a line of an id file names.
    fn find(&self, id: &str) -> Option<(&str, &MappedName)> {
        let entry = |id: &str| self.names.get_key_value(&MappedName(id.into()));
        let (id, name) = entry(id).or_else(|| entry(without_zeros(id)?))?;
        // A key that equals an id is UTF-8.
        Some((std::str::from_utf8(&id.0).ok()?, name))
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
pub(crate) fn is_inside(path: &Path) -> bool {
    path.file_name().is_some()
        && !path.as_os_str().as_encoded_bytes().contains(&0)
        && path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}
