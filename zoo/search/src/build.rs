//! Making an index of a folder of images or of captions.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Description, Encoding, Index, IndexWriter, Item, SearchError, images_in};
use crate::{Error, Result};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Images or captions in the index.
    pub items: usize,
    /// Those that were encoded.
    pub encoded: usize,
    /// Those that were taken over from the index that was there.
    pub kept: usize,
    /// Images that can not be used, and are not in the index.
    pub skipped: Vec<Skipped>,
}

/// An image that is not in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path, relative to the folder.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Makes the index of the images below `folder`, at `path`. Images that are in an index there already, of the same folder,
/// model, engine and precision, are not encoded again as long as size and time of the file are the same; one of another
/// engine or precision is made anew. Images that can not be used are skipped and reported.
///
/// # Errors
/// [`SearchError::Empty`] for a folder without images, [`SearchError::Unusable`] if none can be used,
/// [`SearchError::OtherModel`] and [`SearchError::Kind`] for an index that is there and is another,
/// [`SearchError::Interrupted`]. After any, what was at `path` is as it was.
pub fn index_images(
    folder: &Path,
    path: &Path,
    mut description: Description,
    encoding: &Encoding<'_>,
    begin: &dyn Fn(usize),
) -> Result<Summary> {
    let images = images_in(folder)?;
    description.source = full(folder);
    let old = there(path, &description)?.filter(|old| old.description().has_same_embeddings(&description));
    // Both are in the order of the names.
    let place = |item: &Item| {
        let old = old.as_ref()?;
        let place = old.items().binary_search_by(|other| other.name.cmp(&item.name)).ok()?;
        (item.stamp.is_some() && old.items()[place] == *item).then_some(place)
    };
    let places: Vec<Option<usize>> = images.iter().map(|(item, _)| place(item)).collect();
    let kept = places.iter().flatten().count();
    let unchanged = kept == images.len() && old.as_ref().is_some_and(|old| old.items().len() == kept);
    if unchanged {
        return Ok(Summary { items: kept, kept, ..Summary::default() });
    }

    let mut writer = IndexWriter::create(path, description)?;
    let mut skipped = Vec::new();
    let mut next = 0;
    // What is taken over, up to the image at `end`.
    let mut take = |writer: &mut IndexWriter, end: usize| -> Result<()> {
        while next < end {
            if let (Some(old), Some(place)) = (&old, places[next]) {
                writer.copy(old, place)?;
            }
            next += 1;
        }
        Ok(())
    };
    let new: Vec<usize> = (0..images.len()).filter(|&image| places[image].is_none()).collect();
    let paths: Vec<PathBuf> = new.iter().map(|&image| images[image].1.clone()).collect();
    begin(paths.len());
    encoding.images(paths, |index, embeddings| {
        let item = &images[new[index]].0;
        take(&mut writer, new[index])?;
        match embeddings {
            Ok(embeddings) => writer.push(item.clone(), embeddings),
            Err(cause) => {
                skipped.push(Skipped { name: item.name.clone(), reason: cause.to_string() });
                Ok(())
            }
        }
    })?;
    take(&mut writer, images.len())?;
    if let (true, Some(Skipped { name, reason })) = (writer.is_empty(), skipped.first().cloned()) {
        return Err(SearchError::Unusable { path: folder.to_owned(), count: images.len(), name, reason }.into());
    }
    let items = writer.len();
    writer.finish()?;
    Ok(Summary { items, encoded: items - kept, kept, skipped })
}

/// Makes the index of `captions`, read from `source`, at `path`, in place of one of captions that is there.
///
/// # Errors
/// [`SearchError::Empty`] without captions, [`DataError`](laps_data::DataError) for one that is too long, and as
/// [`index_images`].
pub fn index_captions(
    captions: &[String],
    source: &Path,
    path: &Path,
    mut description: Description,
    encoding: &Encoding<'_>,
    begin: &dyn Fn(usize),
) -> Result<Summary> {
    if captions.is_empty() {
        let [expected, found] = ["a caption a line", "none"].map(str::to_owned);
        return Err(SearchError::Empty { path: source.to_owned(), expected, found }.into());
    }
    description.source = full(source);
    there(path, &description)?;
    let tokens = encoding.tokens(captions)?;
    let mut writer = IndexWriter::create(path, description)?;
    begin(captions.len());
    encoding.captions(&tokens, |index, words| {
        writer.push(Item { name: captions[index].clone(), stamp: None }, words.values())
    })?;
    let items = writer.len();
    writer.finish()?;
    Ok(Summary { items, encoded: items, ..Summary::default() })
}

/// The index at `path`, where there is one; it has to be of the same kind and model.
fn there(path: &Path, description: &Description) -> Result<Option<Index>> {
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

fn full(path: &Path) -> String {
    fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
