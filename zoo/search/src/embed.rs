//! Embeddings as files for other programs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Serialize;

use super::{
    Encoding, FirstRow, ModelUsed, Precision, SearchError,
    growing::{Growing, Tensor, numpy_header, safetensors_header},
    pool,
};
use crate::{Error, Result};
use laps_align::similarity::AlignmentConfig;

/// Room for the header of a safetensors file.
const SAFETENSORS: usize = 4096;

/// Room for the header of a NumPy file, a multiple of 64.
const NUMPY: usize = 128;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors, with the names of images or the captions, lengths, and what made the embeddings.
    Safetensors,
    /// NumPy's `.npy`: the array alone.
    Numpy,
}

impl FromStr for Format {
    type Err = SearchError;

    /// From the ending of a file name.
    fn from_str(ending: &str) -> Result<Self, SearchError> {
        match ending {
            "safetensors" => Ok(Self::Safetensors),
            "npy" => Ok(Self::Numpy),
            _ => Err(SearchError::Option {
                option: "--out",
                expected: "a file that ends in `.safetensors` or `.npy`",
                found: format!("`{ending}`"),
            }),
        }
    }
}

/// What is written of each image or caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Every token or word.
    Rows,
    /// One vector, see [`pool()`].
    Pooled,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Embedded {
    /// Name of the tensor.
    pub tensor: &'static str,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Images or captions, in the order of the first axis.
    pub items: Vec<String>,
    /// Words of each caption, those from its length on being zeros; nothing for images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lengths: Vec<usize>,
}

/// Writes `patch_embeddings` `(images, tokens, width)`, or `pooled` `(images, width)`, to `path`.
///
/// # Errors
/// [`SearchError::Image`] for the first image that can not be used, [`SearchError::Interrupted`], [`Error::Io`]. After any,
/// what was at `path` is as it was.
pub fn embed_images(
    images: Vec<PathBuf>,
    path: &Path,
    (format, content): (Format, Content),
    model: &ModelUsed,
    encoding: &Encoding<'_>,
) -> Result<Embedded> {
    let AlignmentConfig { width, has_class_token, .. } = encoding.sizes;
    let first = if has_class_token { FirstRow::ClassToken } else { FirstRow::Plain };
    let items: Vec<String> = images.iter().map(|image| image.display().to_string()).collect();
    let mut file = Growing::create(path, room(format))?;
    let paths = images.clone();
    encoding.images(images, |index, embeddings| {
        let embeddings = embeddings.map_err(|cause| SearchError::Image { path: paths[index].clone(), cause })?;
        match content {
            Content::Rows => write(&mut file, embeddings),
            Content::Pooled => write(&mut file, &pool(embeddings, width, first)),
        }
    })?;
    let (tensor, shape) = match content {
        Content::Rows => ("patch_embeddings", vec![items.len(), encoding.sizes.tokens(), width]),
        Content::Pooled => ("pooled", vec![items.len(), width]),
    };
    finish(file, format, Embedded { tensor, shape, items, lengths: Vec::new() }, model)
}

/// Writes `word_embeddings` `(captions, words, width)`, padded with zeros to the longest caption, or `pooled` `(captions,
/// width)`, to `path`.
///
/// # Errors
/// [`DataError`](laps_data::DataError) for a caption that is too long, [`SearchError::Interrupted`], [`Error::Io`]. After any, what was at `path`
/// is as it was.
pub fn embed_captions(
    captions: Vec<String>,
    path: &Path,
    (format, content): (Format, Content),
    model: &ModelUsed,
    encoding: &Encoding<'_>,
) -> Result<Embedded> {
    let width = encoding.sizes.width;
    let tokens = encoding.tokens(&captions)?;
    let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut file = Growing::create(path, room(format))?;
    encoding.captions(&tokens, |_, words| match content {
        Content::Rows => {
            let mut values = words.values().to_vec();
            values.resize(longest * width, 0.0);
            write(&mut file, &values)
        }
        Content::Pooled => write(&mut file, &pool(words.values(), width, FirstRow::Plain)),
    })?;
    let (tensor, shape) = match content {
        Content::Rows => ("word_embeddings", vec![captions.len(), longest, width]),
        Content::Pooled => ("pooled", vec![captions.len(), width]),
    };
    finish(file, format, Embedded { tensor, shape, items: captions, lengths }, model)
}

fn room(format: Format) -> usize {
    match format {
        Format::Safetensors => SAFETENSORS,
        Format::Numpy => NUMPY,
    }
}

fn write(file: &mut Growing, values: &[f32]) -> Result<()> {
    file.append(&Precision::Single.encode(values, "")?)
}

fn finish(mut file: Growing, format: Format, embedded: Embedded, model: &ModelUsed) -> Result<Embedded> {
    let Embedded { tensor: name, shape, items, lengths } = &embedded;
    match format {
        Format::Numpy => file.finish(&numpy_header(Precision::Single.numpy(), shape, NUMPY))?,
        Format::Safetensors => {
            let json =
                |error: serde_json::Error| Error::Io { action: "write", path: "items".into(), source: error.into() };
            let items = serde_json::to_vec(items).map_err(json)?;
            let model = serde_json::to_string(model).map_err(json)?;
            let bytes = 4 * shape.iter().product::<usize>();
            let mut tensors =
                vec![Tensor { name, dtype: Precision::Single.safetensors(), shape: shape.clone(), bytes }];
            if !lengths.is_empty() {
                tensors.push(Tensor {
                    name: "lengths",
                    dtype: "I64",
                    shape: vec![lengths.len()],
                    bytes: 8 * lengths.len(),
                });
                let lengths: Vec<u8> = lengths.iter().flat_map(|&length| (length as i64).to_le_bytes()).collect();
                file.append(&lengths)?;
            }
            tensors.push(Tensor { name: "items", dtype: "U8", shape: vec![items.len()], bytes: items.len() });
            file.append(&items)?;
            let metadata = BTreeMap::from([("laps_zoo.model", model)]);
            file.finish(&safetensors_header(&tensors, &metadata, SAFETENSORS))?;
        }
    }
    Ok(embedded)
}
