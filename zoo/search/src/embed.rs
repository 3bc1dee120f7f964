//! Embedding files for other programs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use laps_files::IoError;

use serde::Serialize;

use super::{
    DamagedImage, EmbeddingPipeline, IndexKind, IndexPrecision, ModelUsed, SearchError, SkippedItem,
    pipeline::EncodedImage,
    staged_file::{StagedFile, TensorEntry, numpy_header, safetensors_header},
};
use crate::{Error, Result};
use laps_data::{ExifOrientation, OnFault};

/// Bytes reserved for the header of a safetensors file.
const SAFETENSORS_HEADER_BYTES: usize = 4096;

/// Bytes reserved for the header of a NumPy file, a multiple of 64.
const NUMPY_HEADER_BYTES: usize = 128;

/// File format of embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingFormat {
    /// safetensors, with image names or captions, lengths, and the model that computed the embeddings.
    Safetensors,
    /// NumPy's `.npy`: the array only.
    Numpy,
}

impl EmbeddingFormat {
    fn header_bytes(self) -> usize {
        match self {
            Self::Safetensors => SAFETENSORS_HEADER_BYTES,
            Self::Numpy => NUMPY_HEADER_BYTES,
        }
    }
}

impl EmbeddingGranularity {
    /// The granularity that `model` has if this one is requested.
    fn with(self, model: &ModelUsed) -> Self {
        if model.head.pools() { Self::Pooled } else { self }
    }
}

impl FromStr for EmbeddingFormat {
    type Err = SearchError;

    /// Parses a file name extension.
    fn from_str(extension: &str) -> Result<Self, SearchError> {
        match extension {
            "safetensors" => Ok(Self::Safetensors),
            "npy" => Ok(Self::Numpy),
            _ => Err(SearchError::Option {
                option: "output file",
                expected: "a file that ends in `.safetensors` or `.npy`",
                found: format!("`{extension}`"),
            }),
        }
    }
}

/// Granularity of the embeddings of each image or caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingGranularity {
    /// One vector for each token or word. A head that pools has none of them: its vectors are written.
    Tokens,
    /// One pooled vector, the one that the candidate stage of a search compares.
    Pooled,
}

/// Contents of a written embedding file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EmbeddingFile {
    /// Name of the tensor.
    pub tensor: &'static str,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Images as [`path_to_text`](laps_files::path_to_text) writes their paths, or captions, in the order of the first axis.
    pub items: Vec<String>,
    /// Words of each caption; rows from that length on are padding. Empty for images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lengths: Vec<usize>,
    /// Images that cannot be used and have no embedding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedItem>,
    /// Images that were decoded in part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedImage>,
}

/// An image to embed.
#[derive(Clone, Debug)]
pub struct ImageInput {
    /// The file.
    pub path: PathBuf,
    /// Name in the embedding file and in messages.
    pub name: String,
    /// Reaction to an image that cannot be used.
    pub on_fault: OnFault,
}

/// Writes `patch_embeddings` `(images, tokens, dim)`, or `pooled` `(images, dim)`, to `path`.
///
/// # Errors
/// [`SearchError::Image`] for the first image that cannot be used and is not to be skipped, [`SearchError::Unusable`] if all
/// are skipped, [`SearchError::Interrupted`], [`Error::Io`]. After an error an existing file at `path` is unchanged.
pub fn embed_images(
    images: &[ImageInput],
    path: &Path,
    format: EmbeddingFormat,
    granularity: EmbeddingGranularity,
    model: &ModelUsed,
    pipeline: &EmbeddingPipeline<'_>,
) -> Result<EmbeddingFile> {
    let width = pipeline.sizes.width;
    let granularity = granularity.with(model);
    let (mut items, mut skipped, mut damaged) = (Vec::with_capacity(images.len()), Vec::new(), Vec::new());
    let mut file = StagedFile::create(path, format.header_bytes())?;
    let paths = images.iter().map(|image| image.path.clone()).collect();
    pipeline.for_each_image(paths, ExifOrientation::Ignore, |index, image| {
        let ImageInput { path, name, on_fault } = &images[index];
        let EncodedImage { embeddings, damage } = match (image, on_fault) {
            (Ok(image), _) => image,
            (Err(cause), OnFault::Stop) => return Err(SearchError::Image { path: path.clone(), cause }.into()),
            (Err(cause), OnFault::Skip) => {
                skipped.push(SkippedItem { name: name.clone(), line: None, reason: cause.to_string() });
                return Ok(());
            }
        };
        damaged.extend(damage.map(|warning| DamagedImage { name: name.clone(), warning }));
        items.push(name.clone());
        match granularity {
            EmbeddingGranularity::Tokens => write(&mut file, embeddings),
            EmbeddingGranularity::Pooled => write(&mut file, &pipeline.pool(IndexKind::Images, embeddings)),
        }
    })?;
    if let (true, Some(SkippedItem { name, reason, .. })) = (items.is_empty(), skipped.first()) {
        let path = images[0].path.parent().unwrap_or(&images[0].path).to_owned();
        let (kind, count, name) = (IndexKind::Images, images.len(), format!("`{name}`"));
        return Err(SearchError::Unusable { path, kind, count, name, reason: reason.clone() }.into());
    }
    let (tensor, shape) = match granularity {
        EmbeddingGranularity::Tokens => ("patch_embeddings", vec![items.len(), pipeline.sizes.tokens, width]),
        EmbeddingGranularity::Pooled => ("pooled", vec![items.len(), width]),
    };
    finish(file, format, EmbeddingFile { tensor, shape, items, lengths: Vec::new(), skipped, damaged }, model)
}

/// Writes `word_embeddings` `(captions, words, dim)`, padded with zeros to the longest caption, or `pooled`
/// `(captions, dim)`, to `path`.
///
/// # Errors
/// [`DataError`](laps_data::DataError) for a caption that is too long, [`SearchError::Interrupted`], [`Error::Io`]. After
/// an error an existing file at `path` is unchanged.
pub fn embed_captions(
    captions: Vec<String>,
    path: &Path,
    format: EmbeddingFormat,
    granularity: EmbeddingGranularity,
    model: &ModelUsed,
    pipeline: &EmbeddingPipeline<'_>,
) -> Result<EmbeddingFile> {
    let width = pipeline.sizes.width;
    let granularity = granularity.with(model);
    let tokens = pipeline.tokenize(&captions)?;
    let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut file = StagedFile::create(path, format.header_bytes())?;
    pipeline.for_each_caption(&tokens, |_, words| match granularity {
        EmbeddingGranularity::Tokens => {
            let mut values = words.values().to_vec();
            values.resize(longest * width, 0.0);
            write(&mut file, &values)
        }
        EmbeddingGranularity::Pooled => write(&mut file, &pipeline.pool(IndexKind::Captions, words.values())),
    })?;
    let (tensor, shape) = match granularity {
        EmbeddingGranularity::Tokens => ("word_embeddings", vec![captions.len(), longest, width]),
        EmbeddingGranularity::Pooled => ("pooled", vec![captions.len(), width]),
    };
    let (skipped, damaged) = (Vec::new(), Vec::new());
    finish(file, format, EmbeddingFile { tensor, shape, items: captions, lengths, skipped, damaged }, model)
}

fn write(file: &mut StagedFile, values: &[f32]) -> Result<()> {
    file.append(&IndexPrecision::Single.encode(values, "")?)
}

fn finish(
    mut file: StagedFile,
    format: EmbeddingFormat,
    contents: EmbeddingFile,
    model: &ModelUsed,
) -> Result<EmbeddingFile> {
    let EmbeddingFile { tensor: name, shape, items, lengths, .. } = &contents;
    match format {
        EmbeddingFormat::Numpy => file.finish(&numpy_header(shape, NUMPY_HEADER_BYTES))?,
        EmbeddingFormat::Safetensors => {
            let json = |error: serde_json::Error| Error::Io(IoError::new("write", "items", error.into()));
            let items = serde_json::to_vec(items).map_err(json)?;
            let model = serde_json::to_string(model).map_err(json)?;
            let bytes = 4 * shape.iter().product::<usize>();
            let dtype = IndexPrecision::Single.safetensors();
            let mut tensors = vec![TensorEntry { name, dtype, shape: shape.clone(), bytes }];
            if !lengths.is_empty() {
                let count = lengths.len();
                tensors.push(TensorEntry { name: "lengths", dtype: "I64", shape: vec![count], bytes: 8 * count });
                let lengths: Vec<u8> = lengths.iter().flat_map(|&length| (length as i64).to_le_bytes()).collect();
                file.append(&lengths)?;
            }
            tensors.push(TensorEntry { name: "items", dtype: "U8", shape: vec![items.len()], bytes: items.len() });
            file.append(&items)?;
            let metadata = BTreeMap::from([("laps_zoo.model", model)]);
            file.finish(&safetensors_header(&tensors, &metadata, SAFETENSORS_HEADER_BYTES))?;
        }
    }
    Ok(contents)
}
