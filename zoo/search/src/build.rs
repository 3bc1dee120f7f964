//! Creating and updating an index.

use std::path::{Path, PathBuf};

use serde::Serialize;

use laps_files::path_to_text;

use super::{
    CaptionLine, DamagedImage, EmbeddingPipeline, ImageFolder, Index, IndexDescription, IndexItem, SearchError,
    SkippedItem,
    index_writer::IndexWriter,
    pipeline::{EncodedImage, UsableCaptions},
};
use crate::{Error, Result};

/// What indexing did.
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
/// If the existing index applies the EXIF orientation, its update does so too. If it has the same folder, model, engine and
/// precision, images with an unchanged size and modification time are copied from it instead of being encoded. With another
/// engine or precision all images are encoded. Images that cannot be used are skipped and reported. `begin` receives the
/// number of images to encode.
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
    let is_same = |previous: &Index| {
        previous.items().len() == images.len() && previous.description().inputs_sha256 == description.inputs_sha256
    };
    let previous = previous.filter(|index| index.description().has_same_embeddings(&description));
    // Both lists are sorted by name.
    let find_unchanged = |item: &IndexItem| {
        let previous = previous.as_ref()?;
        let index = previous.items().binary_search_by(|other| other.name.cmp(&item.name)).ok()?;
        (item.stamp.is_some() && previous.items()[index] == *item).then_some(index)
    };
    let unchanged: Vec<Option<usize>> = images.iter().map(|(item, _)| find_unchanged(item)).collect();
    let kept = unchanged.iter().flatten().count();
    if kept == images.len() && previous.as_ref().is_some_and(is_same) {
        let skipped = folder.skipped.clone();
        return Ok((IndexSummary { items: kept, kept, skipped, ..IndexSummary::default() }, None));
    }

    let mut writer = IndexWriter::create(path, description.clone())?;
    let (mut skipped, mut damaged) = (folder.skipped.clone(), Vec::new());
    let mut next = 0;
    // Copies the unchanged images before image `end`.
    let mut copy_until = |writer: &mut IndexWriter, end: usize| -> Result<()> {
        while next < end {
            if let (Some(previous), Some(item)) = (&previous, unchanged[next]) {
                writer.push_stored(previous.items()[item].clone(), previous.stored(item)?)?;
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
                writer.push(item.clone(), embeddings)
            }
            Err(cause) => {
                skipped.push(SkippedItem { name: item.name.clone(), line: None, reason: cause.to_string() });
                Ok(())
            }
        }
    })?;
    copy_until(&mut writer, images.len())?;
    skipped.sort();
    let items = writer.len();
    Ok((IndexSummary { items, encoded: items - kept, kept, skipped, damaged }, Some(writer)))
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
    let items = writer.len();
    writer.finish()?;
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
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The source of an index in its description: `path` without links and relative parts.
pub fn absolute(path: &Path) -> String {
    path_to_text(&fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}
