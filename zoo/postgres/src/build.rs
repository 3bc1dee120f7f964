//! Adding images and captions to a collection.

use std::{collections::HashSet, path::PathBuf};

use laps_files::{read_regular, sha256};
use laps_search::{
    CaptionLine, DamagedImage, EmbeddingPipeline, EncodedImage, ImageFolder, IndexItem, IndexKind, IndexSummary,
    Result, SearchError, SkippedItem, UsableCaptions,
};

use crate::{
    Collection,
    writer::{Metadata, Writer},
};

/// Batches of images between two commits.
const COMMIT_BATCHES: usize = 8;

/// Treatment of items that are not in the folder or file any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingItems {
    /// They stay, so that several writers can add parts of a folder.
    Keep,
    /// They are deleted.
    Delete,
}

/// Summary of a load into a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadSummary {
    /// Counts, and what was skipped. `items` are those of the whole collection, `kept` those that did not have to be
    /// encoded.
    pub index: IndexSummary,
    /// Items that were deleted.
    pub removed: usize,
}

impl From<IndexSummary> for LoadSummary {
    fn from(index: IndexSummary) -> Self {
        Self { index, removed: 0 }
    }
}

impl Collection {
    /// Adds the images of `folder`. Images with an unchanged size and modification time, or whose content is in the
    /// collection, are not encoded. Images that cannot be used are skipped and reported. `begin` receives the number of
    /// images that are read.
    ///
    /// # Errors
    /// [`SearchError::Unusable`] if no image can be used; [`SearchError::Interrupted`], after which the committed items
    /// stay; the errors of the encoder and of the database.
    pub fn index_images(
        &self,
        folder: &ImageFolder,
        metadata: &Metadata,
        missing: MissingItems,
        pipeline: &EmbeddingPipeline<'_>,
        begin: &dyn Fn(usize),
    ) -> Result<LoadSummary> {
        self.begin_writing()?;
        let known = self.known_items()?;
        let is_unchanged = |item: &IndexItem| {
            item.stamp.is_some() && known.get(&item.name).is_some_and(|known| known.stamp == item.stamp)
        };
        let changed: Vec<&(IndexItem, PathBuf)> =
            folder.images.iter().filter(|(item, _)| !is_unchanged(item)).collect();
        let mut summary = IndexSummary {
            kept: folder.images.len() - changed.len(),
            skipped: folder.skipped.clone(),
            ..IndexSummary::default()
        };
        let mut writer = Writer::new(self, metadata);
        begin(changed.len());
        for chunk in changed.chunks(COMMIT_BATCHES * pipeline.batch_size.get()) {
            let added = self.add_images(chunk, &mut writer, metadata, pipeline, &mut summary);
            // What is encoded is committed even if the rest fails.
            let committed = writer.commit();
            added.map_err(|error| interrupted(error, &writer))?;
            committed?;
        }
        summary.skipped.sort();
        if let (0, 0, Some(SkippedItem { name, reason, .. })) = (summary.encoded, summary.kept, summary.skipped.first())
        {
            let (path, count, name) = (folder.path.clone(), folder.images.len(), format!("`{name}`"));
            let (kind, reason) = (IndexKind::Images, reason.clone());
            return Err(SearchError::Unusable { path, kind, count, name, reason }.into());
        }
        self.update_metadata(metadata)?;
        let unusable: HashSet<&str> = summary.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
        let present = folder.images.iter().map(|(item, _)| item.name.as_str());
        let present: HashSet<&str> = present.filter(|name| !unusable.contains(name)).collect();
        let gone = known.keys().map(String::as_str).filter(|name| !present.contains(name));
        self.finish(summary, missing, gone)
    }

    fn add_images(
        &self,
        images: &[&(IndexItem, PathBuf)],
        writer: &mut Writer<'_>,
        metadata: &Metadata,
        pipeline: &EmbeddingPipeline<'_>,
        summary: &mut IndexSummary,
    ) -> Result<()> {
        let (mut new, mut contents) = (Vec::new(), Vec::new());
        for &(item, path) in images {
            // A file that cannot be read is skipped by the decoder, with the reason.
            let content = read_regular(path).ok().map(|bytes| sha256(&bytes));
            if let Some(content) = &content
                && self.copy_content(item, content, metadata)?
            {
                summary.kept += 1;
                (pipeline.progress)(1);
                continue;
            }
            new.push((item, path.clone()));
            contents.push(content);
        }
        let paths = new.iter().map(|(_, path)| path.clone()).collect();
        pipeline.for_each_image(paths, self.description.orientation(), |index, image| {
            let item = new[index].0;
            match image {
                Ok(EncodedImage { embeddings, damage }) => {
                    summary.damaged.extend(damage.map(|warning| DamagedImage { name: item.name.clone(), warning }));
                    let stored = self.description.encode_item(&item.name, embeddings)?;
                    writer.push(item.clone(), contents[index], stored)?;
                    summary.encoded += 1;
                }
                Err(cause) => {
                    let (name, reason) = (item.name.clone(), cause.to_string());
                    summary.skipped.push(SkippedItem { name, line: None, reason });
                }
            }
            Ok(())
        })
    }

    /// Adds captions; equal ones are one item. Captions that are in the collection are not encoded. Captions that are too
    /// long are skipped and reported.
    ///
    /// # Errors
    /// Those of [`Collection::index_images`].
    pub fn index_captions(
        &self,
        captions: &[CaptionLine],
        metadata: &Metadata,
        missing: MissingItems,
        pipeline: &EmbeddingPipeline<'_>,
        begin: &dyn Fn(usize),
    ) -> Result<LoadSummary> {
        self.begin_writing()?;
        let known = self.known_items()?;
        let mut present = HashSet::new();
        let distinct = captions.iter().filter(|caption| present.insert(caption.text.as_str()));
        let (old, new): (Vec<CaptionLine>, Vec<CaptionLine>) =
            distinct.cloned().partition(|caption| known.contains_key(&caption.text));
        let UsableCaptions { lines, tokens, skipped } = pipeline.tokenize_usable(&new)?;
        let mut summary = IndexSummary { kept: old.len(), skipped, ..IndexSummary::default() };
        if let (true, 0, Some(SkippedItem { name, line, reason })) =
            (lines.is_empty(), old.len(), summary.skipped.first())
        {
            let (path, count) = (PathBuf::from(name), captions.len());
            let (name, reason) = (format!("line {}", line.unwrap_or_default()), reason.clone());
            return Err(SearchError::Unusable { path, kind: IndexKind::Captions, count, name, reason }.into());
        }
        let mut writer = Writer::new(self, metadata);
        begin(lines.len());
        let added = pipeline.for_each_caption(&tokens, |index, words| {
            let name = lines[index].text.clone();
            let stored = self.description.encode_item(&name, words.values())?;
            let content = sha256(name.as_bytes());
            writer.push(IndexItem { name, stamp: None }, Some(content), stored)
        });
        let committed = writer.commit();
        added.map_err(|error| interrupted(error, &writer))?;
        committed?;
        summary.encoded = writer.written;
        self.update_metadata(metadata)?;
        let gone = known.keys().map(String::as_str).filter(|name| !present.contains(name));
        self.finish(summary, missing, gone)
    }

    /// Deletes the items `gone`, if so wanted, and ends writing.
    fn finish<'a>(
        &self,
        mut summary: IndexSummary,
        missing: MissingItems,
        gone: impl Iterator<Item = &'a str>,
    ) -> Result<LoadSummary> {
        let removed = match missing {
            MissingItems::Keep => 0,
            MissingItems::Delete => self.delete(&gone.collect::<Vec<_>>())?,
        };
        self.end_writing()?;
        summary.items = self.count(None)?;
        Ok(LoadSummary { index: summary, removed })
    }
}

/// An interruption says what is in the database.
fn interrupted(error: laps_search::Error, writer: &Writer<'_>) -> laps_search::Error {
    match error {
        laps_search::Error::Search(SearchError::Interrupted { .. }) => {
            let state = format!("{} items were written; the same command continues", writer.written);
            SearchError::Interrupted { state }.into()
        }
        error => error,
    }
}
