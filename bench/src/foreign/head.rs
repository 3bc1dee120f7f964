//! Heads over foreign embeddings.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine,
};
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{self, Entry},
};
use laps_model::{
    array::Array,
    dim::Dim,
    heads::{self, Head, HeadConfig, HeadSizes},
    params::{ParamPath, Parameter},
    tensor::Tensor,
};

use super::{Embeddings, arrays::Matrix};
use crate::{
    Error, Result,
    reproduce::{HeadUsed, SourceFile},
};

/// Images and captions of one tile. The context vectors of a pair take 61 kB for 30 words of width 512, so those of a tile
/// take 31 MB.
const TILE_IMAGES: usize = 16;
const TILE_CAPTIONS: usize = 32;

/// A head and its parameters.
#[derive(Clone, Debug)]
pub struct HeadSource {
    /// The head.
    pub kind: HeadKind,
    /// Its parameters, for a head that has some.
    pub checkpoint: Option<PathBuf>,
    /// Whether the first token of an image is a class token. With `None` it is, if the number of other tokens is a square
    /// (a grid of patches) and the number of all tokens is not.
    pub class_token: Option<bool>,
}

/// Which head.
#[derive(Clone, Debug)]
pub enum HeadKind {
    /// LAPS's own, with the sizes of an entry.
    Laps(Box<Entry>),
    /// Another one.
    Other(HeadConfig),
}

impl HeadSource {
    /// The head of a type name, of a YAML file with the mapping of a section `head`, or of an entry (by name or path).
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown type, with the nearest known one; a file that is neither.
    pub fn find(name: &str, checkpoint: Option<PathBuf>, class_token: Option<bool>) -> Result<Self> {
        let of = |kind| Self { kind, checkpoint, class_token };
        let is_path = name.ends_with(".yaml") || name.ends_with(".yml") || name.contains(std::path::MAIN_SEPARATOR);
        if registry::names().contains(&name) {
            return Ok(of(HeadKind::Laps(Box::new(registry::find(name)?))));
        }
        let text = match is_path {
            true => laps_files::read_text(name.as_ref()).map_err(|source| Error::Read { path: name.into(), source })?,
            false => name.to_owned(),
        };
        let document: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|error| unreadable(name, &error))?;
        // An entry has a model; the mapping of a head may lie below the key `head`.
        if document.get("model").is_some() {
            return Ok(of(HeadKind::Laps(Box::new(registry::find(name)?))));
        }
        let head = document.get("head").cloned().unwrap_or(document);
        if let Some(kind) = head.get("type").unwrap_or(&head).as_str() {
            check_type(kind)?;
        }
        let config = serde_yaml::from_value(head).map_err(|error| unreadable(name, &error))?;
        Ok(of(HeadKind::Other(config)))
    }
}

/// Rejects unknown types, and `laps`, whose sizes only an entry has.
fn check_type(kind: &str) -> Result<()> {
    if kind == "laps" {
        return Err(Error::Argument {
            argument: "head",
            expected: "an entry for the head `laps`, whose sizes it has".to_owned(),
            found: "`laps`".to_owned(),
        });
    }
    if HeadConfig::TYPES.contains(&kind) { Ok(()) } else { Err(unknown(kind)) }
}

fn unknown(name: &str) -> Error {
    let nearest = HeadConfig::TYPES.into_iter().max_by(|a, b| strsim::jaro(name, a).total_cmp(&strsim::jaro(name, b)));
    Error::Argument {
        argument: "head",
        expected: format!(
            "{}, an entry, or a YAML file with one",
            HeadConfig::TYPES.map(|kind| format!("`{kind}`")).join(", ")
        ),
        found: format!("`{name}`; did you mean `{}`?", nearest.unwrap_or("laps")),
    }
}

fn unreadable(name: &str, error: &serde_yaml::Error) -> Error {
    Error::Argument {
        argument: "head",
        expected: "the mapping of a head, such as `{ type: vsepp, pooling: gpo }`".to_owned(),
        found: format!("`{name}`: {error}"),
    }
}

/// All similarities, and the head that computed them.
pub(super) fn similarities(
    embeddings: &Embeddings,
    head: Option<&HeadSource>,
    notes: &mut Vec<String>,
) -> Result<(Matrix, HeadUsed)> {
    let [images, captions] = [embeddings.images.shape[0], embeddings.captions.shape[0]];
    let held = |values| Matrix::Held { images, captions, values };
    match head {
        None if embeddings.are_pooled() => {
            let [images, captions] = [array(embeddings, true)?, array(embeddings, false)?];
            let found = cosine(&images, &captions)?;
            Ok((held(found.values().to_vec()), HeadUsed { name: "cosine".to_owned(), checkpoint: None }))
        }
        None => Err(Error::Argument {
            argument: "head",
            expected: "a head for embeddings of tokens and words".to_owned(),
            found: "none".to_owned(),
        }),
        Some(HeadSource { kind: HeadKind::Laps(entry), checkpoint, .. }) => {
            let (found, checkpoint) = laps_similarities(embeddings, entry, checkpoint.as_deref())?;
            Ok((held(found), HeadUsed { name: format!("laps, entry {}", entry.name), checkpoint: Some(checkpoint) }))
        }
        Some(source @ HeadSource { kind: HeadKind::Other(config), .. }) => {
            let found = head_similarities(embeddings, config, source, notes)?;
            let checkpoint = source.checkpoint.as_deref().map(Checkpoint::open).transpose()?;
            let checkpoint = checkpoint.as_ref().map(SourceFile::of_checkpoint).transpose()?;
            Ok((held(found), HeadUsed { name: config.to_string(), checkpoint }))
        }
    }
}

/// `(n, tokens, width)` of the images or the captions; one token for pooled embeddings.
fn array(embeddings: &Embeddings, of_images: bool) -> Result<Array> {
    let source = if of_images { &embeddings.images } else { &embeddings.captions };
    let shape = match source.shape[..] {
        [items, width] => vec![items, 1, width],
        _ => source.shape.clone(),
    };
    Ok(Array::new(&shape, source.values.clone())?)
}

fn cosine(images: &Array, captions: &Array) -> Result<Array> {
    let flat = |array: &Array| -> Result<Array> {
        let [items, _, width] = array.sizes()?;
        Ok(array.reshape(&[items, width])?.normalize(1e-12)?)
    };
    Ok(flat(images)?.matmul(&flat(captions)?.permute(&[1, 0])?)?)
}

/// The similarities of LAPS's own head, and the checkpoint of its parameters.
fn laps_similarities(
    embeddings: &Embeddings,
    entry: &Entry,
    checkpoint: Option<&Path>,
) -> Result<(Vec<f32>, SourceFile)> {
    let config = AlignmentConfig::of(&entry.model);
    let images = array(embeddings, true)?;
    let found = [images.dims()[1], images.dims()[2]];
    if found != [config.tokens(), config.width] {
        return Err(Error::Foreign {
            path: embeddings.path.clone(),
            expected: format!(
                "images of {} tokens and width {}, as `{}` has",
                config.tokens(),
                config.width,
                entry.name
            ),
            found: format!("{} tokens and width {}", found[0], found[1]),
            hint: "give the entry that the embeddings were computed with",
        });
    }
    let checkpoint = match checkpoint {
        Some(path) => Checkpoint::open(path)?,
        None => laps::open_checkpoint(entry, None)?.0,
    };
    let weights = AggregationWeights::load(|name| Ok(checkpoint.read(name)?))?;
    let options = EngineOptions { threads: rayon::current_num_threads(), ..EngineOptions::default() };
    let engine = Engine::new(config, &weights, options)?;
    let matrix = caption_matrix(embeddings, &array(embeddings, false)?)?;
    let found = engine.similarities(&images, &matrix)?.values().to_vec();
    Ok((found, SourceFile::of_checkpoint(&checkpoint)?))
}

/// The words of captions `(captions, words, width)` over their true lengths.
fn caption_matrix(embeddings: &Embeddings, captions: &Array) -> Result<CaptionMatrix> {
    let [_, words, width] = captions.sizes()?.map(|size: Dim| size.fixed());
    let (words, width) = (words?, width?);
    let mut matrix = CaptionMatrix::new(width);
    for (values, &length) in captions.values().chunks_exact(words * width).zip(&embeddings.lengths) {
        matrix.push(&[length, width], &values[..length * width])?;
    }
    Ok(matrix)
}

fn head_similarities(
    embeddings: &Embeddings,
    config: &HeadConfig,
    source: &HeadSource,
    notes: &mut Vec<String>,
) -> Result<Vec<f32>> {
    let images = array(embeddings, true)?;
    let captions = array(embeddings, false)?;
    let [count, tokens, width] = *images.dims() else { return Ok(Vec::new()) };
    let has_class_token = source.class_token.unwrap_or_else(|| {
        let is_square = |count: usize| count.isqrt().pow(2) == count;
        let assumed = !is_square(tokens) && is_square(tokens - 1);
        if config.uses_class_token() {
            let word = if assumed { "a" } else { "no" };
            notes.push(format!("{tokens} tokens an image: {word} class token is assumed"));
        }
        assumed
    });
    let sizes = HeadSizes { tokens, has_class_token, width, word_width: captions.dims()[2] };
    if source.checkpoint.is_none() && !config.pools() && !matches!(config, HeadConfig::Sgr { .. }) {
        let matrix = caption_matrix(embeddings, &captions)?;
        let options = EngineOptions { threads: rayon::current_num_threads(), ..EngineOptions::default() };
        let no_parameter = |parameter: &Parameter| Array::new(&parameter.shape, Vec::new());
        let engine = HeadEngine::with_sizes(*config, sizes, no_parameter, options, SimdLevel::detect())?;
        return Ok(engine.similarities(&images, &matrix)?.values().to_vec());
    }
    let (config, head) = open_head(config, &sizes, source.checkpoint.as_deref())?;
    let images = blocks(&images, TILE_IMAGES)?;
    // The padding of a caption reaches the vector of `d2s_vse`, so it is kept; elsewhere it is cut off.
    let keeps_padding = matches!(config, HeadConfig::D2sVse(_));
    let mut start = 0;
    let mut captions_of = |words: Array| -> Result<(Array, Array)> {
        let lengths = &embeddings.lengths[start..start + words.dims()[0]];
        start += lengths.len();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let words = if keeps_padding { words } else { words.narrow(1, 0, longest)? };
        let mask = mask(lengths, words.dims()[1])?;
        Ok((words, mask))
    };
    let captions = blocks(&captions, TILE_CAPTIONS)?.into_iter().map(&mut captions_of).collect::<Result<Vec<_>>>()?;
    let image_vectors: Option<laps_model::Result<Vec<Array>>> =
        images.iter().map(|tokens| head.image_vectors(tokens)).collect();
    let caption_vectors: Option<laps_model::Result<Vec<Array>>> =
        captions.iter().map(|(words, mask)| head.caption_vectors(words, mask)).collect();
    if let (Some(images), Some(captions)) = (image_vectors, caption_vectors) {
        let concat = |blocks: Vec<Array>| Array::concat(&blocks.iter().collect::<Vec<_>>(), 0);
        return Ok(heads::inner_products(&concat(images?)?, &concat(captions?)?)?.values().to_vec());
    }
    let total = embeddings.lengths.len();
    let mut found = vec![0.0; count * total];
    let mut first_caption = 0;
    for (words, mask) in &captions {
        let width = words.dims()[0];
        let mut image = 0;
        for tokens in &images {
            let tile = head.forward(tokens, words, mask)?;
            for row in tile.values().chunks_exact(width) {
                found[image * total + first_caption..][..width].copy_from_slice(row);
                image += 1;
            }
        }
        first_caption += width;
    }
    Ok(found)
}

/// The head, and its configuration with the sizes that the checkpoint's parameters have.
fn open_head(config: &HeadConfig, sizes: &HeadSizes, checkpoint: Option<&Path>) -> Result<(HeadConfig, Head<Array>)> {
    let checkpoint = checkpoint.map(Checkpoint::open).transpose()?.map(Rc::new);
    let mut config = *config;
    let shape_of = |checkpoint: &Checkpoint, name: &str| {
        checkpoint.tensors().find(|&(known, ..)| known == name).map(|(_, _, shape)| shape.to_vec())
    };
    if let Some(checkpoint) = &checkpoint {
        config.take_sizes(|name| shape_of(checkpoint, name));
    }
    let wanted = heads::parameters(&config, sizes)?;
    for Parameter { name, shape, .. } in &wanted {
        let refused = |found: String| {
            Err(Error::Argument {
                argument: "checkpoint",
                expected: format!("the {} parameters of the head: `{name}` of shape {shape:?}", wanted.len()),
                found,
            })
        };
        match checkpoint.as_ref().map(|checkpoint| (checkpoint, shape_of(checkpoint, name))) {
            None => return refused("no checkpoint".to_owned()),
            Some((checkpoint, None)) => {
                let first =
                    checkpoint.tensors().next().map_or_else(|| "no tensor".to_owned(), |(name, ..)| name.to_owned());
                return refused(format!("none; the first tensor is `{first}`"));
            }
            Some((_, Some(found))) if found != *shape => return refused(format!("shape {found:?}")),
            Some(_) => {}
        }
    }
    let read = move |parameter: Parameter| match &checkpoint {
        Some(checkpoint) => Ok(checkpoint.read(&parameter.name)?),
        None => Array::new(&parameter.shape, vec![0.0; parameter.elements()]),
    };
    let head = Head::new(&config, sizes, &ParamPath::root(Rc::new(read)))?;
    Ok((config, head))
}

/// Consecutive items, `size` at a time.
fn blocks(array: &Array, size: usize) -> Result<Vec<Array>> {
    let count = array.dims()[0];
    let starts = (0..count).step_by(size);
    Ok(starts.map(|start| array.narrow(0, start, size.min(count - start))).collect::<laps_model::Result<_>>()?)
}

/// 1 for each word of a caption, 0 for padding.
fn mask(lengths: &[usize], longest: usize) -> Result<Array> {
    let row = |&length: &usize| (0..longest).map(move |word| if word < length { 1.0 } else { 0.0 });
    Ok(Array::new(&[lengths.len(), longest], lengths.iter().flat_map(row).collect())?)
}
