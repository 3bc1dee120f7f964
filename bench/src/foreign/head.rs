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
    params::{self, ParamPath, Parameter},
    tensor::Tensor,
};

use super::{Embeddings, arrays::ForeignMatrix};
use crate::{
    Error, Result,
    reproduce::{HeadUsed, SourceFile},
};

/// Images or captions whose vectors a head that pools computes at once.
const POOLED_ITEMS: usize = 32;

/// A head and its parameters.
#[derive(Clone, Debug)]
pub struct HeadSource {
    /// The head.
    pub kind: HeadKind,
    /// Its parameters, for a head that has some.
    pub checkpoint: Option<PathBuf>,
    /// Whether the first token of an image is a class token. With `None` it is, if the number of other tokens is a square
    /// (a grid of patches) and the number of all tokens is not. An entry says so itself.
    pub class_token: Option<bool>,
}

/// Which head.
#[derive(Clone, Debug)]
pub enum HeadKind {
    /// That of an entry, for embeddings of its sizes.
    Entry(Box<Entry>),
    /// One that takes its sizes from the embeddings.
    Config(HeadConfig),
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
            return Ok(of(HeadKind::Entry(Box::new(registry::find(name)?))));
        }
        let text = match is_path {
            true => laps_files::read_text(name.as_ref()).map_err(|source| Error::Read { path: name.into(), source })?,
            false => name.to_owned(),
        };
        let document: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|error| unreadable(name, &error))?;
        // An entry has a model; the mapping of a head may lie below the key `head`.
        if document.get("model").is_some() {
            return Ok(of(HeadKind::Entry(Box::new(registry::find(name)?))));
        }
        let head = document.get("head").cloned().unwrap_or(document);
        if let Some(kind) = head.get("type").unwrap_or(&head).as_str() {
            check_type(kind)?;
        }
        let config = serde_yaml::from_value(head).map_err(|error| unreadable(name, &error))?;
        Ok(of(HeadKind::Config(config)))
    }
}

/// Rejects unknown types, and `laps` and its ablations, whose sizes only an entry has.
fn check_type(kind: &str) -> Result<()> {
    if ["laps", "laps_ablation"].contains(&kind) {
        return Err(Error::Argument {
            argument: "head",
            expected: format!("an entry for the head `{kind}`, whose sizes it has"),
            found: format!("`{kind}`"),
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
) -> Result<(ForeignMatrix, HeadUsed)> {
    let [images, captions] = [embeddings.images.shape[0], embeddings.captions.shape[0]];
    let held = |values| ForeignMatrix::Held { images, captions, values };
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
        Some(source) => {
            let (found, used) = match &source.kind {
                HeadKind::Entry(entry) => entry_similarities(embeddings, entry, source.checkpoint.as_deref())?,
                HeadKind::Config(config) => head_similarities(embeddings, config, source, notes)?,
            };
            Ok((held(found), used))
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

/// The similarities of the head of an entry. Without a checkpoint, the parameters of a head that has some are the entry's.
fn entry_similarities(
    embeddings: &Embeddings,
    entry: &Entry,
    checkpoint: Option<&Path>,
) -> Result<(Vec<f32>, HeadUsed)> {
    let model = &entry.model;
    let [images, captions] = [array(embeddings, true)?, array(embeddings, false)?];
    let HeadSizes { tokens, width, word_width, .. } = HeadSizes::of(model);
    let found = [images.dims()[1], images.dims()[2], captions.dims()[2]];
    if found != [tokens, width, word_width] {
        let describe = |[tokens, width, word_width]: [usize; 3]| {
            format!("images of {tokens} tokens and width {width}, words of width {word_width}")
        };
        return Err(Error::Foreign {
            path: embeddings.path.clone(),
            expected: format!("{}, as `{}` has", describe([tokens, width, word_width]), entry.name),
            found: describe(found),
            hint: match embeddings.are_pooled() {
                true => "leave the head out to compare pooled embeddings by their cosine",
                false => "give the entry that the embeddings were computed with",
            },
        });
    }
    let wanted = params::list(|path| Head::of(model, path))?;
    let checkpoint = match checkpoint {
        Some(path) => Some(Checkpoint::open(path)?),
        None if wanted.is_empty() => None,
        None => Some(laps::open_checkpoint(entry, None)?.0),
    };
    let checkpoint = checkpoint.map(Rc::new);
    check_parameters(&wanted, checkpoint.as_deref())?;
    let used = HeadUsed {
        name: format!("{}, entry {}", model.head, entry.name),
        checkpoint: checkpoint.as_deref().map(SourceFile::of_checkpoint).transpose()?,
    };
    let read = move |name: &str| read_parameter(checkpoint.as_deref(), name);
    let values = match model.head {
        HeadConfig::Laps => {
            let weights = AggregationWeights::load(|name| Ok(read(name)?))?;
            let engine = Engine::new(AlignmentConfig::of(model), &weights, engine_options())?;
            engine.similarities(&images, &caption_matrix(embeddings, &captions)?)?
        }
        head if head.pools() => {
            let path = ParamPath::root(Rc::new(move |parameter: Parameter| read(&parameter.name)));
            pooled_similarities(&Head::of(model, &path)?, &head, &images, &captions, &embeddings.lengths)?
        }
        _ => {
            let engine = HeadEngine::new(model, |parameter| read(&parameter.name), engine_options())?;
            engine.similarities(&images, &caption_matrix(embeddings, &captions)?)?
        }
    };
    Ok((values.values().to_vec(), used))
}

fn engine_options() -> EngineOptions {
    EngineOptions { threads: rayon::current_num_threads(), ..EngineOptions::default() }
}

/// The parameter `name` of a head.
fn read_parameter(checkpoint: Option<&Checkpoint>, name: &str) -> laps_model::Result<Array> {
    let Some(checkpoint) = checkpoint else {
        return Err(laps_model::Error::Parameter {
            name: name.to_owned(),
            expected: "a parameter of the head".to_owned(),
            found: "no checkpoint".to_owned(),
        });
    };
    Ok(checkpoint.read(name)?)
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

/// The similarities of a head with the sizes of the embeddings and of the checkpoint's parameters.
fn head_similarities(
    embeddings: &Embeddings,
    config: &HeadConfig,
    source: &HeadSource,
    notes: &mut Vec<String>,
) -> Result<(Vec<f32>, HeadUsed)> {
    let [images, captions] = [array(embeddings, true)?, array(embeddings, false)?];
    let (tokens, width) = (images.dims()[1], images.dims()[2]);
    let has_class_token = source.class_token.unwrap_or_else(|| {
        let is_square = |count: usize| count.isqrt().pow(2) == count;
        let assumed = !is_square(tokens) && is_square(tokens - 1);
        if config.uses_class_token() {
            let word = if assumed { "a" } else { "no" };
            notes.push(format!("{tokens} tokens an image: {word} class token is assumed"));
        }
        assumed
    });
    if matches!(config, HeadConfig::Cosine { .. }) && !has_class_token && tokens > 1 {
        return Err(Error::Foreign {
            path: embeddings.path.clone(),
            expected: "images with a class token, which the head `cosine` compares".to_owned(),
            found: format!("{tokens} tokens an image, none of them a class token"),
            hint: "say so if the first token is one, or use the head `vsepp`, which pools all tokens",
        });
    }
    let sizes = HeadSizes { tokens, has_class_token, width, word_width: captions.dims()[2] };
    let checkpoint = source.checkpoint.as_deref().map(Checkpoint::open).transpose()?.map(Rc::new);
    let mut config = *config;
    if let Some(checkpoint) = &checkpoint {
        config.take_sizes(|name| shape_of(checkpoint, name));
    }
    check_parameters(&heads::parameters(&config, &sizes)?, checkpoint.as_deref())?;
    let used = HeadUsed {
        name: config.to_string(),
        checkpoint: checkpoint.as_deref().map(SourceFile::of_checkpoint).transpose()?,
    };
    let read = move |name: &str| read_parameter(checkpoint.as_deref(), name);
    let values = if config.pools() {
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| read(&parameter.name)));
        pooled_similarities(&Head::new(&config, &sizes, &path)?, &config, &images, &captions, &embeddings.lengths)?
    } else {
        let read = |parameter: &Parameter| read(&parameter.name);
        let engine = HeadEngine::with_sizes(config, sizes, read, engine_options(), SimdLevel::detect())?;
        engine.similarities(&images, &caption_matrix(embeddings, &captions)?)?
    };
    Ok((values.values().to_vec(), used))
}

/// The inner products of the vectors that a head which pools gives each image and each caption.
fn pooled_similarities(
    head: &Head<Array>,
    config: &HeadConfig,
    images: &Array,
    captions: &Array,
    lengths: &[usize],
) -> Result<Array> {
    let images = blocks(images, POOLED_ITEMS)?;
    // The padding of a caption can reach its vector; if not, it is cut off.
    let keeps_padding = config.reads_padding();
    let mut start = 0;
    let mut captions_of = |words: Array| -> Result<(Array, Array)> {
        let lengths = &lengths[start..start + words.dims()[0]];
        start += lengths.len();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let words = if keeps_padding { words } else { words.narrow(1, 0, longest)? };
        let mask = mask(lengths, words.dims()[1])?;
        Ok((words, mask))
    };
    let captions = blocks(captions, POOLED_ITEMS)?.into_iter().map(&mut captions_of).collect::<Result<Vec<_>>>()?;
    let image_vectors: Option<laps_model::Result<Vec<Array>>> =
        images.iter().map(|tokens| head.image_vectors(tokens)).collect();
    let caption_vectors: Option<laps_model::Result<Vec<Array>>> =
        captions.iter().map(|(words, mask)| head.caption_vectors(words, mask)).collect();
    let (Some(images), Some(captions)) = (image_vectors, caption_vectors) else {
        let (expected, found) = ("a head that pools".to_owned(), config.to_string());
        return Err(laps_model::Error::Operation { operation: "similarity", expected, found }.into());
    };
    let concat = |blocks: Vec<Array>| Array::concat(&blocks.iter().collect::<Vec<_>>(), 0);
    Ok(heads::inner_products(&concat(images?)?, &concat(captions?)?)?)
}

fn shape_of(checkpoint: &Checkpoint, name: &str) -> Option<Vec<usize>> {
    checkpoint.tensors().find(|&(known, ..)| known == name).map(|(_, _, shape)| shape.to_vec())
}

/// Checks that the checkpoint has the parameters of a head.
fn check_parameters(wanted: &[Parameter], checkpoint: Option<&Checkpoint>) -> Result<()> {
    for Parameter { name, shape, .. } in wanted {
        let refused = |found: String| {
            Err(Error::Argument {
                argument: "checkpoint",
                expected: format!("the {} parameters of the head: `{name}` of shape {shape:?}", wanted.len()),
                found,
            })
        };
        match checkpoint.map(|checkpoint| (checkpoint, shape_of(checkpoint, name))) {
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
    Ok(())
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
