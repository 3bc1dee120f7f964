//! Creating and updating an index.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    EmbeddingPipeline, Index, IndexDescription, IndexItem, SearchError, index_writer::IndexWriter, list_images,
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
    /// Images that cannot be used and are not in the index.
    pub skipped: Vec<SkippedImage>,
}

/// An image that is not in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedImage {
    /// Path relative to the folder.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Creates or updates the index `path` of the images below `folder`.
///
/// If the existing index has the same folder, model, engine and precision, images with an unchanged size and modification
/// time are copied from it instead of being encoded. With another engine or precision all images are encoded. Images that
/// cannot be used are skipped and reported. `begin` receives the number of images to encode.
///
/// # Errors
/// [`SearchError::Empty`] for a folder without images, [`SearchError::Unusable`] if none can be used,
/// [`SearchError::OtherModel`] and [`SearchError::Kind`] if the existing index differs, [`SearchError::Interrupted`]. After
/// an error the existing index is unchanged.
pub fn index_images(
    folder: &Path,
    path: &Path,
    mut description: IndexDescription,
    pipeline: &EmbeddingPipeline<'_>,
    begin: &dyn Fn(usize),
) -> Result<IndexSummary> {
    let images = list_images(folder)?;
    description.source = absolute(folder);
    let previous =
        open_previous(path, &description)?.filter(|index| index.description().has_same_embeddings(&description));
    // Both lists are sorted by name.
    let find_unchanged = |item: &IndexItem| {
        let previous = previous.as_ref()?;
        let index = previous.items().binary_search_by(|other| other.name.cmp(&item.name)).ok()?;
        (item.stamp.is_some() && previous.items()[index] == *item).then_some(index)
    };
    let unchanged: Vec<Option<usize>> = images.iter().map(|(item, _)| find_unchanged(item)).collect();
    let kept = unchanged.iter().flatten().count();
    if kept == images.len() && previous.as_ref().is_some_and(|previous| previous.items().len() == kept) {
        return Ok(IndexSummary { items: kept, kept, ..IndexSummary::default() });
    }

    let mut writer = IndexWriter::create(path, description)?;
    let mut skipped = Vec::new();
    let mut next = 0;
    // Copies the unchanged images before image `end`.
    let mut copy_until = |writer: &mut IndexWriter, end: usize| -> Result<()> {
        while next < end {
            if let (Some(previous), Some(item)) = (&previous, unchanged[next]) {
                writer.copy(previous, item)?;
            }
            next += 1;
        }
        Ok(())
    };
    let changed: Vec<usize> = (0..images.len()).filter(|&image| unchanged[image].is_none()).collect();
    let paths: Vec<PathBuf> = changed.iter().map(|&image| images[image].1.clone()).collect();
    begin(paths.len());
    pipeline.for_each_image(paths, |index, embeddings| {
        let item = &images[changed[index]].0;
        copy_until(&mut writer, changed[index])?;
        match embeddings {
            Ok(embeddings) => writer.push(item.clone(), embeddings),
            Err(cause) => {
                skipped.push(SkippedImage { name: item.name.clone(), reason: cause.to_string() });
                Ok(())
            }
        }
    })?;
    copy_until(&mut writer, images.len())?;
    if let (0, Some(SkippedImage { name, reason })) = (writer.len(), skipped.first().cloned()) {
        return Err(SearchError::Unusable { path: folder.to_owned(), count: images.len(), name, reason }.into());
    }
    let items = writer.len();
    writer.finish()?;
    Ok(IndexSummary { items, encoded: items - kept, kept, skipped })
}

/// Creates the index `path` of `captions`, which were read from `source`. It replaces an existing index of captions.
///
/// # Errors
/// [`SearchError::Empty`] without captions, [`DataError`](laps_data::DataError) for a caption that is too long, and those
/// of [`index_images`].
pub fn index_captions(
    captions: &[String],
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
    let tokens = pipeline.tokenize(captions)?;
    let mut writer = IndexWriter::create(path, description)?;
    begin(captions.len());
    pipeline.for_each_caption(&tokens, |index, words| {
        writer.push(IndexItem { name: captions[index].clone(), stamp: None }, words.values())
    })?;
    let items = writer.len();
    writer.finish()?;
    Ok(IndexSummary { items, encoded: items, ..IndexSummary::default() })
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

fn absolute(path: &Path) -> String {
    fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
