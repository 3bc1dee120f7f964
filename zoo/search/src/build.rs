//! Creating and updating an index.

use std::path::{Path, PathBuf};

use serde::Serialize;

use laps_files::{IoError, path_to_text};

use super::{
    CaptionLine, DamagedImage, EmbeddingPipeline, ImageFolder, Index, IndexDescription, IndexItem, SearchError,
    SkippedItem,
    index_writer::IndexWriter,
    pipeline::{EncodedImage, UsableCaptions},
};
use crate::{Error, Result};

/// Summary of an indexing run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IndexSummary {
    /// Images or captions in the index.
    pub items: usize,
    /// Items that were encoded.
    pub encoded: usize,
    /// Items that were copied from the previous index.
    pub kept: usize,
    /// Images, folders and captions that cannot be used and are not in the index, sorted by name.
    pub skipped: Vec<SkippedItem>,
    /// Images that were encoded now and decoded in part, sorted by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedImage>,
}

/// Creates or updates the index `path` of the images of `folder`.
///
/// If the existing index applies the EXIF orientation, its update does so too. If the existing index has the same folder,
/// model, engine and precision, images with an unchanged size and modification time are not encoded again: changes are
/// appended to the file, and it is written anew when more than half of its items would be removed ones. With another engine
/// or precision all images are encoded. Images that cannot be used are skipped and reported. `begin` receives the number of
/// images to encode.
///
/// # Errors
/// [`SearchError::Unusable`] if no image can be used, [`SearchError::OtherModel`] and [`SearchError::Kind`] if the existing index differs, [`SearchError::Interrupted`]. After
/// an error the existing index is unchanged.
pub fn index_images(
    folder: &ImageFolder,
    path: &Path,
    description: IndexDescription,
    pipeline: &EmbeddingPipeline<'_>,
    begin: &dyn Fn(usize),
) -> Result<IndexSummary> {
    let kind = description.kind;
    let (summary, writer) = update_images(folder, path, description, pipeline, begin)?;
    if let (0, Some(SkippedItem { name, reason, .. })) = (summary.items, summary.skipped.first()) {
        let (path, count, name) = (folder.path.clone(), folder.images.len(), format!("`{name}`"));
        return Err(SearchError::Unusable { path, kind, count, name, reason: reason.clone() }.into());
    }
    if let Some(writer) = writer {
        writer.finish()?;
    }
    Ok(summary)
}

/// Encodes the images that changed since the index at `path` was written, as for [`index_images`]. The writer has not
/// finished; there is none if nothing changed.
pub(super) fn update_images(
    folder: &ImageFolder,
    path: &Path,
    mut description: IndexDescription,
    pipeline: &EmbeddingPipeline<'_>,
    begin: &dyn Fn(usize),
) -> Result<(IndexSummary, Option<IndexWriter>)> {
    let images = &folder.images;
    description.source = absolute(&folder.path);
    let previous = open_previous(path, &description)?;
    description.exif_orientation |= previous.as_ref().is_some_and(|index| index.description().exif_orientation);
    let orientation = description.orientation();
    let previous = previous.filter(|index| index.description().has_same_embeddings(&description));
    // The number of each unchanged image in the index, and the items that are none of them.
    let mut unchanged = vec![None; images.len()];
    let mut removed = Vec::new();
    if let Some(previous) = &previous {
        for number in previous.numbers() {
            let item = previous.item(number)?;
            match images.binary_search_by(|(image, _)| image.name.cmp(&item.name)) {
                Ok(image) if unchanged[image].is_none() && item.stamp.is_some() && images[image].0 == item => {
                    unchanged[image] = Some(number);
                }
                _ => removed.push(number),
            }
        }
    }
    let kept = unchanged.iter().flatten().count();
    let is_same = |previous: &Index| previous.description().inputs_sha256 == description.inputs_sha256;
    if kept == images.len() && removed.is_empty() && previous.as_ref().is_some_and(is_same) {
        let skipped = folder.skipped.clone();
        return Ok((IndexSummary { items: kept, kept, skipped, ..IndexSummary::default() }, None));
    }

    // The description is that of the file as it was written first, so other inputs take a new file.
    let can_grow =
        |index: &&Index| is_same(index) && index.single_file().is_some_and(|file| file.can_grow(removed.len()));
    let grown = previous.as_ref().filter(can_grow);
    let mut writer = match grown {
        Some(index) => IndexWriter::append(index, &removed)?,
        None => IndexWriter::create(path, description.clone())?,
    };
    let (mut skipped, mut damaged) = (folder.skipped.clone(), Vec::new());
    let (mut next, mut encoded) = (0, 0);
    // Copies the unchanged images before image `end` into a new file.
    let mut copy_until = |writer: &mut IndexWriter, end: usize| -> Result<()> {
        while next < end {
            if let (Some(previous), Some(number), None) = (&previous, unchanged[next], grown) {
                writer.push_stored(previous.item(number)?, previous.stored(number)?)?;
            }
            next += 1;
        }
        Ok(())
    };
    let changed: Vec<usize> = (0..images.len()).filter(|&image| unchanged[image].is_none()).collect();
    let paths: Vec<PathBuf> = changed.iter().map(|&image| images[image].1.clone()).collect();
    begin(paths.len());
    pipeline.for_each_image(paths, orientation, |index, image| {
        let item = &images[changed[index]].0;
        copy_until(&mut writer, changed[index])?;
        match image {
            Ok(EncodedImage { embeddings, damage }) => {
                damaged.extend(damage.map(|warning| DamagedImage { name: item.name.clone(), warning }));
                writer.push(item.clone(), embeddings)?;
                encoded += 1;
            }
            Err(cause) => {
                skipped.push(SkippedItem { name: item.name.clone(), line: None, reason: cause.to_string() });
            }
        }
        Ok(())
    })?;
    copy_until(&mut writer, images.len())?;
    skipped.sort();
    // Without a change, the segment is dropped.
    let writer = (grown.is_none() || encoded + removed.len() > 0).then_some(writer);
    Ok((IndexSummary { items: kept + encoded, encoded, kept, skipped, damaged }, writer))
}

/// Creates the index `path` of `captions`, which were read from `source`. It replaces an existing index of captions. Captions
/// that are too long are skipped and reported.
///
/// # Errors
/// [`SearchError::Empty`] without captions, and those of [`index_images`].
pub fn index_captions(
    captions: &[CaptionLine],
    source: &Path,
    path: &Path,
    mut description: IndexDescription,
    pipeline: &EmbeddingPipeline<'_>,
    begin: &dyn Fn(usize),
) -> Result<IndexSummary> {
    if captions.is_empty() {
        let [expected, found] = ["one caption a line", "none"].map(str::to_owned);
        return Err(SearchError::Empty { path: source.to_owned(), expected, found }.into());
    }
    description.source = absolute(source);
    open_previous(path, &description)?;
    let UsableCaptions { lines, tokens, skipped } = pipeline.tokenize_usable(captions)?;
    if let (true, Some(SkippedItem { line, reason, .. })) = (lines.is_empty(), skipped.first()) {
        let (path, count) = (source.to_owned(), captions.len());
        let name = format!("line {}", line.unwrap_or_default());
        return Err(SearchError::Unusable { path, kind: description.kind, count, name, reason: reason.clone() }.into());
    }
    let mut writer = IndexWriter::create(path, description)?;
    begin(lines.len());
    pipeline.for_each_caption(&tokens, |index, words| {
        writer.push(IndexItem { name: lines[index].text.clone(), stamp: None }, words.values())
    })?;
    writer.finish()?;
    let items = lines.len();
    Ok(IndexSummary { items, encoded: items, skipped, ..IndexSummary::default() })
}

/// The index at `path`, if there is one. It must have the kind and model of `description`.
fn open_previous(path: &Path, description: &IndexDescription) -> Result<Option<Index>> {
    match Index::open(path) {
        Ok(index) => {
            index.description().check_kind(path, description.kind)?;
            index.description().check_model(path, &description.model)?;
            Ok(Some(index))
        }
        Err(Error::Io(IoError { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The source of an index in its description: `path` without links and relative parts.
pub fn absolute(path: &Path) -> String {
    path_to_text(&fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}
