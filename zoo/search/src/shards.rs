//! Embeddings of many images as shards, each of which is complete or absent.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use laps_data::{OnFault, sources::unpack_images};
use laps_files::{IoError, TemporaryFolder, path_to_text, sha256_hex};
use serde::{Deserialize, Serialize};

use super::{
    EmbeddingFormat, EmbeddingGranularity, EmbeddingPipeline, ImageInput, ModelUsed, SkippedItem, embed_images,
};
use crate::{Error, Result, SearchError};

/// File of the folder that lists the shards.
const MANIFEST: &str = "embeddings.json";

/// The images of a shard.
#[derive(Clone, Debug)]
pub enum ShardInput {
    /// Image files.
    Images(Vec<ImageInput>),
    /// A tar file of the WebDataset format, or a Parquet file.
    Archive(PathBuf),
}

/// Contents of a shard: the file `shard-NUMBER.json`, which is written last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSummary {
    /// Version of the file format.
    pub schema: u32,
    /// Hash of the model, of what is written for an image, and of names, sizes and times of modification of the inputs.
    pub inputs_sha256: String,
    /// Number of images in the input.
    pub images: usize,
    /// Number of images with an embedding.
    pub embedded: usize,
    /// Images without an embedding, with the reason.
    pub skipped: Vec<SkippedItem>,
    /// Number of images that are missing: their files were listed, and are gone.
    pub missing: usize,
}

impl ShardSummary {
    /// Reads the file of a summary; None if it is absent or not one.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs_err::read(path).ok()?).ok()
    }

    /// Whether every image of the input has an embedding, or a reason why it has none.
    pub fn is_complete(&self) -> bool {
        self.missing == 0 && self.embedded.checked_add(self.skipped.len()) == Some(self.images)
    }
}

/// How many images of some shards have which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardCounts {
    /// Images in the inputs.
    pub images: usize,
    /// Images with an embedding.
    pub embedded: usize,
    /// Images that cannot be used; the file of their shard says why.
    pub skipped: usize,
    /// Images that were listed and are gone.
    pub missing: usize,
}

impl ShardCounts {
    /// The sums of some shards.
    pub fn of<'a>(shards: impl IntoIterator<Item = &'a ShardSummary>) -> Self {
        shards.into_iter().fold(Self::default(), |sum, shard| Self {
            images: sum.images.saturating_add(shard.images),
            embedded: sum.embedded.saturating_add(shard.embedded),
            skipped: sum.skipped.saturating_add(shard.skipped.len()),
            missing: sum.missing.saturating_add(shard.missing),
        })
    }
}

/// The shards of a folder, when all of them are finished: the file `embeddings.json`.
#[derive(Serialize)]
struct EmbeddingsManifest<'a> {
    schema: u32,
    model: &'a ModelUsed,
    #[serde(flatten)]
    counts: ShardCounts,
    /// In the order of their numbers.
    shards: Vec<ManifestShard<'a>>,
}

#[derive(Serialize)]
struct ManifestShard<'a> {
    inputs_sha256: &'a str,
    #[serde(flatten)]
    counts: ShardCounts,
}

/// Writes shards to a folder.
pub struct ShardWriter<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// Granularity of the embeddings of each image.
    pub granularity: EmbeddingGranularity,
    /// The model.
    pub model: &'a ModelUsed,
    /// Encodes the images.
    pub pipeline: EmbeddingPipeline<'a>,
}

impl ShardWriter<'_> {
    /// Writes shard `number`: `shard-NUMBER.safetensors`, unless no image can be used, and then `shard-NUMBER.json`. Returns
    /// what is there if it is of the same inputs and the same model.
    ///
    /// # Errors
    /// Errors of [`embed_images`], and of a tar or Parquet file that cannot be used.
    pub fn write(&self, number: usize, input: &ShardInput) -> Result<ShardSummary> {
        let path = self.path(number);
        let summary_path = path.with_extension("json");
        let inputs_sha256 = self.identity(input)?;
        if let Some(found) = self.existing(number, &inputs_sha256) {
            return Ok(found);
        }
        // That of earlier inputs.
        let manifest = self.folder.join(MANIFEST);
        match fs_err::remove_file(&manifest) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(io("remove", &manifest))?,
        }
        let unpacked;
        let images = match input {
            ShardInput::Images(images) => images,
            ShardInput::Archive(archive) => {
                let folder = TemporaryFolder::create_in(self.folder).map_err(io("create", self.folder))?;
                let names = unpack_images(archive, folder.path()).map_err(laps_data::Error::from)?;
                let image = |name: String| ImageInput {
                    path: folder.path().join(&name),
                    name: format!("{}/{name}", path_to_text(archive)),
                    on_fault: OnFault::Skip,
                };
                unpacked = (names.into_iter().map(image).collect::<Vec<_>>(), folder);
                &unpacked.0
            }
        };
        let format = EmbeddingFormat::Safetensors;
        let (embedded, skipped) =
            match embed_images(images, &path, format, self.granularity, self.model, &self.pipeline) {
                Ok(written) => (written.items.len(), written.skipped),
                Err(Error::Search(SearchError::Unusable { reason, .. })) => {
                    let skipped = |image: &ImageInput| {
                        let cause = laps_data::image::read(&image.path).err();
                        let reason = cause.map_or_else(|| reason.clone(), |cause| cause.to_string());
                        SkippedItem { name: image.name.clone(), line: None, reason }
                    };
                    (0, images.iter().map(skipped).collect())
                }
                Err(error) => return Err(error),
            };
        let missing = images.iter().filter(|image| !image.path.exists()).count();
        let summary = ShardSummary { schema: 1, inputs_sha256, images: images.len(), embedded, skipped, missing };
        let text = serde_json::to_string_pretty(&summary).map_err(|error| io("write", &summary_path)(error.into()))?;
        laps_files::replace(&summary_path, format!("{text}\n").as_bytes()).map_err(io("write", &summary_path))?;
        Ok(summary)
    }

    /// The summary of shard `number`, if it is finished and of these inputs and this model.
    ///
    /// # Errors
    /// A model that cannot be described, which is not known to happen.
    pub fn finished(&self, number: usize, input: &ShardInput) -> Result<Option<ShardSummary>> {
        Ok(self.existing(number, &self.identity(input)?))
    }

    /// Writes `embeddings.json`, which lists the model, all shards and their counts. It is there as long as the shards are
    /// those that it lists. Every process that finds all shards finished writes the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn write_manifest(&self, shards: &[ShardSummary]) -> Result<()> {
        let path = self.folder.join(MANIFEST);
        let listed = shards
            .iter()
            .map(|shard| ManifestShard { inputs_sha256: &shard.inputs_sha256, counts: ShardCounts::of([shard]) });
        let manifest = EmbeddingsManifest {
            schema: 1,
            model: self.model,
            counts: ShardCounts::of(shards),
            shards: listed.collect(),
        };
        let text = serde_json::to_string_pretty(&manifest).map_err(|error| io("write", &path)(error.into()))?;
        laps_files::replace(&path, format!("{text}\n").as_bytes()).map_err(io("write", &path))
    }

    fn existing(&self, number: usize, inputs_sha256: &str) -> Option<ShardSummary> {
        let path = self.path(number);
        let found = ShardSummary::read(&path.with_extension("json"))?;
        (found.inputs_sha256 == inputs_sha256 && (found.embedded == 0 || path.is_file())).then_some(found)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("shard-{number:05}.safetensors"))
    }

    fn identity(&self, input: &ShardInput) -> Result<String> {
        let model = serde_json::to_string(self.model).map_err(|error| io("write", self.folder)(error.into()))?;
        let mut text = format!("shard 1\n{model}\n{:?}\n", self.granularity);
        let files: Vec<(&Path, String)> = match input {
            ShardInput::Images(images) => {
                images.iter().map(|image| (image.path.as_path(), image.name.clone())).collect()
            }
            ShardInput::Archive(path) => vec![(path, path_to_text(path))],
        };
        for (path, name) in files {
            // A file that is gone is counted when it is embedded.
            let metadata = fs_err::metadata(path).ok();
            let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let size = metadata.map_or(0, |metadata| metadata.len());
            text += &format!("{name:?} {size} {}\n", modified.as_nanos());
        }
        Ok(sha256_hex(text.as_bytes()))
    }
}

fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io(IoError::new(action, &path, source))
}

#[cfg(test)]
mod tests {
    use super::ShardSummary;

    #[test]
    fn summary_with_impossible_counts_is_not_complete() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = |embedded: u64| {
            format!(
                r#"{{"schema":1,"inputs_sha256":"","images":1,"embedded":{embedded},"missing":0,
                "skipped":[{{"name":"a","reason":"b"}}]}}"#
            )
        };
        for (embedded, complete) in [(0, true), (1, false), (u64::MAX, false)] {
            fs_err::write(file.path(), text(embedded)).unwrap();
            assert_eq!(ShardSummary::read(file.path()).unwrap().is_complete(), complete, "{embedded}");
        }
        fs_err::write(file.path(), "[]").unwrap();
        assert_eq!(ShardSummary::read(file.path()), None);
    }
}
