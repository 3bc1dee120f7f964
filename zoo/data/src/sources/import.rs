//! Writes the LAPS layout from a source.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
};

use laps_files::path_to_text;
use serde::{Deserialize, Serialize};

use super::{
    CaptionUse, Source, SourceItem, SourceKind, known,
    split_list::{SplitList, SplitPosition},
    unusable,
};
use crate::{
    DataError, SplitSize,
    captions::{CAPTIONS, IDS, MAPPING, is_inside},
};

/// Largest sum of ids, names and captions.
const MAX_TEXT: usize = 1 << 30;
/// Largest sum of the images inside of a file, as a multiple of the size of the file. Images are compressed already.
const MAX_EXPANSION: u64 = 64;
/// Sum of images that a small file may have anyway.
const MIN_UNPACKED_BYTES: u64 = 1 << 24;
/// Maximum number of files that a note names.
const LISTED: usize = 8;

/// Treatment of images that lie in the image folder of a source. Images inside of Parquet and tar files are always
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageTransfer {
    /// They stay where they are; the imported files are used with the image folder of the source.
    Keep,
    /// Symbolic links, or copies on systems without them.
    Link,
    /// Copies.
    Copy,
}

/// Summary of an [`import`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Number of images and captions of each split.
    pub splits: BTreeMap<String, SplitSize>,
    /// Whether `images` has the images; otherwise they are in the image folder of the source.
    pub has_images: bool,
    /// Captions that were left out because their image has more than [`Source::max_captions`], by split.
    #[serde(default)]
    pub dropped_captions: BTreeMap<String, usize>,
    /// Items that were left out, and known traps.
    pub notes: Vec<String>,
}

/// An image with captions.
struct ImportedImage {
    split: String,
    rank: usize,
    id: String,
    captions: Vec<String>,
}

/// The images that were unpacked from one file. Many rows of a Parquet file may refer to one image, and pages of zeros take
/// no space in it.
#[derive(Default)]
struct UnpackedBytes {
    path: PathBuf,
    bytes: u64,
    max: u64,
}

impl UnpackedBytes {
    /// Adds an image of the file at `path`, before it is written.
    fn add(&mut self, path: &Path, bytes: usize) -> Result<(), DataError> {
        if self.path != path {
            let max = fs_err::metadata(path)?.len().saturating_mul(MAX_EXPANSION).max(MIN_UNPACKED_BYTES);
            *self = Self { path: path.to_owned(), bytes: 0, max };
        }
        self.bytes += bytes as u64;
        if self.bytes > self.max {
            let expected = format!("at most {} bytes of images in a file of this size", self.max);
            return Err(unusable(path, expected, "more"));
        }
        Ok(())
    }
}

struct Import<'a> {
    source: &'a Source,
    list: Option<SplitList>,
    folder: &'a Path,
    transfer: ImageTransfer,
    images: Vec<ImportedImage>,
    /// Index of an image by its id.
    by_id: HashMap<String, usize>,
    /// Id of an image by its name.
    by_name: BTreeMap<String, String>,
    text: usize,
    unpacked: UnpackedBytes,
    wrote_images: bool,
    unlisted: usize,
    without_captions: usize,
    /// Captions of each image before the limit.
    caption_counts: Vec<usize>,
}

/// Reads `source` and writes `captions/<split>_ids.txt`, `captions/<split>_caps.txt` and `captions/id_mapping.json` below
/// `folder`, which is created, and images to `images` if any are written.
///
/// Line breaks in a caption become spaces. Of an image with more than [`Source::max_captions`] captions the first ones are
/// used.
///
/// # Errors
/// [`DataError::Content`] with the place in the source that cannot be used.
pub fn import(source: &Source, folder: &Path, transfer: ImageTransfer) -> Result<Imported, DataError> {
    fs_err::create_dir_all(folder.join("captions"))?;
    let list = source.splits.as_ref().map(|path| SplitList::read(path, &source.names)).transpose()?;
    let mut import = Import {
        source,
        list,
        folder,
        transfer,
        images: Vec::new(),
        by_id: HashMap::new(),
        by_name: BTreeMap::new(),
        text: 0,
        unpacked: UnpackedBytes::default(),
        wrote_images: false,
        unlisted: 0,
        without_captions: 0,
        caption_counts: Vec::new(),
    };
    let unnamed = source.read(&mut |item| import.add(item))?;
    import.finish(&unnamed)
}

/// Writes the images inside of a tar file (`.tar`) of the WebDataset format or a Parquet file (`.parquet`) below `folder`,
/// and returns their names in order. Captions are not needed.
///
/// # Errors
/// [`DataError::Content`] for a file that cannot be used, one of another extension, and images outside of the file.
pub fn unpack_images(path: &Path, folder: &Path) -> Result<Vec<String>, DataError> {
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("tar") => SourceKind::Webdataset,
        Some("parquet") => SourceKind::Parquet,
        _ => return Err(unusable(path, "a file `.tar` or `.parquet`", "another extension")),
    };
    let source = Source { captions: CaptionUse::Ignored, ..Source::below(kind, path, &[], None, None)? };
    let (mut names, mut seen, mut unpacked) = (Vec::new(), HashSet::new(), UnpackedBytes::default());
    source.read(&mut |SourceItem { origin: (path, place), name, bytes, .. }| {
        if !is_inside(Path::new(&name)) {
            let expected = format!("a name inside the image folder in {place}");
            return Err(unusable(&path, expected, format!("`{}`", name.escape_debug())));
        }
        let bytes = bytes.ok_or_else(|| unusable(&path, format!("the bytes of an image in {place}"), "a path"))?;
        // One row per caption repeats its image.
        if seen.insert(name.clone()) {
            unpacked.add(&path, bytes.len())?;
            let to = folder.join(&name);
            if let Some(parent) = to.parent() {
                fs_err::create_dir_all(parent)?;
            }
            fs_err::write(&to, bytes)?;
            names.push(name);
        }
        Ok(())
    })?;
    Ok(names)
}

impl Import<'_> {
    fn add(&mut self, item: SourceItem) -> Result<(), DataError> {
        let SourceItem { origin: (path, place), split, id, name, captions, bytes } = item;
        let known = |split: String| self.source.names.known(&split).map_or(split, str::to_owned);
        let listed = self.list.as_ref().map(|list| list.find(&id, &name).cloned());
        let (split, rank, id, name) = match listed {
            Some(None) => {
                self.unlisted += 1;
                return Ok(());
            }
            Some(Some(SplitPosition { split, rank, id_and_name })) => match id_and_name {
                // The name of an image in the image folder says where it is.
                Some((id, listed)) => (split, rank, id, if bytes.is_some() { listed } else { name }),
                None => (split, rank, id, name),
            },
            None => (split.map_or_else(|| self.source.names.test.clone(), known), self.images.len(), id, name),
        };
        if !is_inside(Path::new(&name)) || name.contains(['\n', '\r']) {
            let expected = format!("a name inside the image folder in {place}");
            return Err(unusable(&path, expected, format!("`{}`", name.escape_debug())));
        }
        for (what, text) in [("an image id", &id), ("the name of a split", &split)] {
            let bad = |letter: char| letter.is_control() || (what != "an image id" && "/\\".contains(letter));
            if text.trim() != text || text.is_empty() || text.contains(bad) {
                return Err(unusable(&path, format!("{what} in {place}"), format!("`{}`", text.escape_debug())));
            }
        }
        self.text += id.len() + name.len() + captions.iter().map(String::len).sum::<usize>();
        if self.text > MAX_TEXT {
            return Err(unusable(&path, format!("at most {MAX_TEXT} bytes of ids, names and captions"), "more"));
        }
        if captions.is_empty() {
            self.without_captions += 1;
            return Ok(());
        }
        let captions = captions.into_iter().map(|caption| one_line(&caption));
        let limit = self.source.max_captions.get();
        let is_known_name = self.by_name.get(&name);
        if let Some(&index) = self.by_id.get(&id) {
            // Another row of the same image.
            let image = &mut self.images[index];
            if is_known_name != Some(&id) || image.split != split {
                let expected = format!("an id of its own for the image in {place}");
                return Err(unusable(&path, expected, format!("`{id}`, the id of another image")));
            }
            self.caption_counts[index] += captions.len();
            image.captions.extend(captions.take(limit - image.captions.len().min(limit)));
            return Ok(());
        }
        if let Some(other) = is_known_name {
            let expected = format!("a name of its own for the image `{id}` in {place}");
            return Err(unusable(&path, expected, format!("`{name}`, the name of image `{other}`")));
        }
        if let Some(bytes) = &bytes {
            self.unpacked.add(&path, bytes.len())?;
        }
        self.write_image(&name, bytes.as_deref())?;
        self.caption_counts.push(captions.len());
        self.by_id.insert(id.clone(), self.images.len());
        self.by_name.insert(name, id.clone());
        self.images.push(ImportedImage { split, rank, id, captions: captions.take(limit).collect() });
        Ok(())
    }

    /// Writes, links or copies an image.
    fn write_image(&mut self, name: &str, bytes: Option<&[u8]>) -> Result<(), DataError> {
        let (to, from) = (self.folder.join("images").join(name), self.source.images.join(name));
        if bytes.is_none() && self.transfer == ImageTransfer::Keep {
            return Ok(());
        }
        if let Some(parent) = to.parent() {
            fs_err::create_dir_all(parent)?;
        }
        self.wrote_images = true;
        match bytes {
            Some(bytes) => fs_err::write(&to, bytes)?,
            None if self.transfer == ImageTransfer::Link => link(&from, &to)?,
            None => _ = fs_err::copy(&from, &to)?,
        }
        Ok(())
    }

    fn finish(mut self, unnamed: &[PathBuf]) -> Result<Imported, DataError> {
        let mut notes = Vec::new();
        let source = self.source;
        let described = source.files.first().cloned().unwrap_or_default();
        if self.images.is_empty() {
            let found = if self.unlisted > 0 { "none that the list of splits names" } else { "none" };
            return Err(unusable(&described, "images with captions", found));
        }
        if self.unlisted > 0 {
            notes.push(format!("images that are not in the list of splits and are left out: {}", self.unlisted));
        }
        if let Some(list) = &self.list
            && list.count > self.images.len()
        {
            notes.push(format!(
                "images of the list of splits that are not in the data: {}",
                list.count - self.images.len()
            ));
        }
        if !unnamed.is_empty() {
            let mut names: Vec<String> = unnamed.iter().map(|path| format!("`{}`", path_to_text(path))).collect();
            names.sort();
            let further = names.len().saturating_sub(LISTED);
            names.truncate(LISTED);
            if further > 0 {
                names.push(format!("and {further} more"));
            }
            let names = names.join(", ");
            notes.push(format!("files whose names are not UTF-8, which are left out: {}: {names}", unnamed.len()));
        }
        if self.without_captions > 0 {
            notes.push(format!("images without a caption, which are left out: {}", self.without_captions));
        }
        let limit = source.max_captions.get();
        let longer = self.caption_counts.iter().filter(|&&count| count > limit);
        let (images, further) = longer.fold((0, 0), |(images, further), count| (images + 1, further + count - limit));
        if images > 0 {
            notes.push(format!(
                "images with more than {limit} captions: {images}; further captions, which are left out as in the published \
                 protocols: {further}"
            ));
        }
        let mut dropped_captions = BTreeMap::new();
        for (image, &count) in self.images.iter().zip(&self.caption_counts).filter(|&(_, &count)| count > limit) {
            *dropped_captions.entry(image.split.clone()).or_default() += count - limit;
        }
        notes.extend(known::count_traps(&self.split_sizes()));
        // Stable: images without a list keep their order.
        self.images.sort_by_key(|image| image.rank);
        let captions = self.folder.join("captions");
        let splits = self.split_sizes();
        for split in splits.keys() {
            let (mut ids, mut texts) = (String::new(), String::new());
            for image in self.images.iter().filter(|image| image.split == *split) {
                for caption in &image.captions {
                    ids += &format!("{}\n", image.id);
                    texts += &format!("{caption}\n");
                }
            }
            fs_err::write(captions.join(format!("{split}{IDS}")), ids)?;
            fs_err::write(captions.join(format!("{split}{CAPTIONS}")), texts)?;
        }
        let names: BTreeMap<&String, &String> = self.by_name.iter().map(|(name, id)| (id, name)).collect();
        let mapping = serde_json::to_string_pretty(&names).map_err(io::Error::other)?;
        fs_err::write(captions.join(MAPPING), format!("{mapping}\n"))?;
        Ok(Imported { splits, has_images: self.wrote_images, dropped_captions, notes })
    }

    fn split_sizes(&self) -> BTreeMap<String, SplitSize> {
        let mut sizes: BTreeMap<String, SplitSize> = BTreeMap::new();
        for image in &self.images {
            let size = sizes.entry(image.split.clone()).or_insert(SplitSize { images: 0, captions: 0 });
            size.images += 1;
            size.captions += image.captions.len();
        }
        sizes
    }
}

/// A caption without surrounding white space and line breaks.
fn one_line(caption: &str) -> String {
    let lines: Vec<&str> = caption.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    // A link to a file that is missing would hide the fault until the image is read.
    fs_err::metadata(from)?;
    fs_err::os::unix::fs::symlink(std::path::absolute(from)?, to)
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs_err::copy(from, to).map(|_| ())
}
