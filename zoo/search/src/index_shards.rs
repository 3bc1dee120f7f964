//! An index of the images of a folder as shards, which several processes can write.

use std::{
    io::ErrorKind,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use laps_files::{IoError, sha256_hex};
use serde::{Deserialize, Serialize};

use super::{
    EmbeddingPipeline, ImageFolder, IndexDescription, IndexSummary, SearchError, build::update_images,
    segmented_file::SegmentedFile,
};
use crate::{Error, Result};

/// File of the folder that lists the shards.
const MANIFEST: &str = "index.json";

/// Version of the file format.
const SCHEMA: u32 = 1;

/// The shards of an index.
#[derive(Serialize, Deserialize)]
pub(super) struct IndexManifest {
    schema: u32,
    /// Hash of names, sizes and times of modification of the images of each shard, in the order of the shards.
    pub(super) shards: Vec<String>,
}

impl IndexManifest {
    /// The manifest of the folder `path`; None if it has none.
    ///
    /// # Errors
    /// [`SearchError::Damaged`] for a file that is not a manifest.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let file = path.join(MANIFEST);
        let bytes = match fs_err::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(io("read", &file))?,
        };
        let damaged = |reason: String| SearchError::Damaged { path: file.clone(), reason };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if manifest.schema != SCHEMA {
            return Err(damaged(format!("it has format version {}, and {SCHEMA} is expected", manifest.schema)).into());
        }
        Ok(Some(manifest))
    }
}

/// The file of shard `number` of the index `path`.
pub(super) fn shard_path(path: &Path, number: usize) -> PathBuf {
    path.join(format!("shard-{number:05}.index"))
}

/// The index of a folder as shards of consecutive images.
///
/// Each shard is an index by itself, so shards can be written in any order, by any process, and again: images that are
/// unchanged in a shard are not encoded again. [`Index::open`](super::Index::open) opens the folder of the shards when all of
/// them are written; it has the items, in the same order, of an index in one file.
pub struct ShardedIndex<'a> {
    path: &'a Path,
    folder: &'a ImageFolder,
    size: NonZeroUsize,
    description: IndexDescription,
    /// Hash of the images of each shard.
    inputs: Vec<String>,
}

impl<'a> ShardedIndex<'a> {
    /// Whether `path` is a folder of shards, rather than one of images. Its list may be damaged or of another version, which
    /// [`Index::open`](super::Index::open) reports.
    pub fn exists(path: &Path) -> bool {
        matches!(IndexManifest::read(path), Ok(Some(_))) || shard_path(path, 0).is_file()
    }

    /// Starts or continues the index `path`, a folder, with shards of `size` images. If an existing shard applies the EXIF
    /// orientation, all of them do so.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn create(
        path: &'a Path,
        folder: &'a ImageFolder,
        size: NonZeroUsize,
        mut description: IndexDescription,
    ) -> Result<Self> {
        fs_err::create_dir_all(path).map_err(io("create", path))?;
        let manifest = path.join(MANIFEST);
        let json = |error: serde_json::Error| io("write", &manifest)(error.into());
        let hash = |images: &[_]| {
            let items: Vec<_> = images.iter().map(|(item, _)| item).collect();
            Ok(sha256_hex(&serde_json::to_vec(&items).map_err(json)?))
        };
        let inputs = folder.images.chunks(size.get()).map(hash).collect::<Result<Vec<_>>>()?;
        let text = serde_json::to_string_pretty(&IndexManifest { schema: SCHEMA, shards: inputs.clone() });
        laps_files::replace(&manifest, format!("{}\n", text.map_err(json)?).as_bytes())
            .map_err(io("write", &manifest))?;
        let existing = (0..inputs.len()).find_map(|number| description_of(&shard_path(path, number)));
        description.exif_orientation |= existing.is_some_and(|shard| shard.exif_orientation);
        // Left by an index of more shards.
        for number in inputs.len().. {
            let shard = shard_path(path, number);
            match fs_err::remove_file(&shard) {
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                removed => removed.map_err(io("remove", &shard))?,
            }
        }
        Ok(Self { path, folder, size, description, inputs })
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.inputs.len()
    }

    /// Writes shard `number`, or updates it like [`index_images`](super::index_images). A shard without an image that can be
    /// used is empty. `begin` receives the number of images to encode.
    ///
    /// # Errors
    /// Those of [`index_images`](super::index_images) except [`SearchError::Unusable`].
    pub fn write(
        &self,
        number: usize,
        pipeline: &EmbeddingPipeline<'_>,
        begin: &dyn Fn(usize),
    ) -> Result<IndexSummary> {
        let images = self.folder.images.chunks(self.size.get()).nth(number).unwrap_or_default();
        let folder = ImageFolder { path: self.folder.path.clone(), images: images.to_vec(), skipped: Vec::new() };
        let description =
            IndexDescription { inputs_sha256: self.inputs.get(number).cloned(), ..self.description.clone() };
        let (summary, writer) = update_images(&folder, &shard_path(self.path, number), description, pipeline, begin)?;
        if let Some(writer) = writer {
            writer.finish()?;
        }
        Ok(summary)
    }

    /// Whether shard `number` is written.
    pub fn is_finished(&self, number: usize) -> bool {
        let found = description_of(&shard_path(self.path, number)).and_then(|shard| shard.inputs_sha256);
        found.is_some() && found.as_ref() == self.inputs.get(number)
    }
}

fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io(IoError::new(action, &path, source))
}

/// The description of a shard, if it can be read.
fn description_of(shard: &Path) -> Option<IndexDescription> {
    SegmentedFile::open(shard).ok().map(|file| file.description)
}
