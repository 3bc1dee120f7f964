//! The work itself.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use zoo::{
    array::Array,
    checkpoint::Checkpoint,
    data::{Loader, LoaderOptions, Preflight, Split, Tokenizer, image::Preprocessing, preflight},
    encoder::{Device, Encoder},
    models::laps,
    registry::{self, DataPaths, Entry},
    retrieval::{
        CaptionImages, Evaluation, Protocol, Scores, evaluate,
        similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, EngineOptions},
    },
};

use super::{CheckpointUsed, Comparison, DataUsed, Provenance, Reproduction, SCHEMA, Stage, Verdict, compare};
use crate::{
    Error, Result, embedded,
    engine::{self, EngineChoice},
    files,
    machine::{Machine, peak_memory},
    progress::Progress,
    similarity::SimilarityEngine,
};

/// Images whose similarities are computed together: enough for every thread, few enough to hold.
const BLOCK: usize = 64;
/// Batches of images that are decoded ahead of the encoder.
const AHEAD: usize = 3;

/// What is to be reproduced, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The entry.
    pub entry: Entry,
    /// The checkpoint; only an entry with an embedded one can do without.
    pub checkpoint: Option<PathBuf>,
    /// Root of the caption and image folders.
    pub data: Option<PathBuf>,
    /// Name of the split, if not the entry's test split.
    pub split: Option<String>,
    /// Only the first images of the split, and their captions.
    pub limit: Option<NonZeroUsize>,
    /// What computes the embeddings.
    pub engine: EngineChoice,
    /// Where.
    pub device: Device,
    /// Threads.
    pub threads: usize,
    /// Images, and captions, that are encoded together.
    pub batch_size: NonZeroUsize,
    /// Largest difference of a recall to a published one, in points.
    pub tolerance: f64,
    /// Bytes that the similarity engine may take, its inputs and the matrix not counted.
    pub memory_limit: usize,
}

impl Request {
    /// Finds what is wrong with the request itself and with the files that its result will be written to.
    pub fn check<'a>(&self, outputs: impl Iterator<Item = &'a Path>) -> Result<()> {
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err(Error::Option {
                option: "--tolerance",
                expected: "a number of points, not negative".to_owned(),
                found: self.tolerance.to_string(),
            });
        }
        if self.checkpoint.is_none() && registry::embedded_checkpoint(&self.entry.name).is_none() {
            return Err(Error::no_checkpoint(&self.entry));
        }
        outputs.into_iter().try_for_each(files::check_writable)?;
        engine::check(self.engine, self.device)
    }
}

/// The captions of a split in every form that is needed.
struct Texts {
    split: Split,
    tokens: Vec<Vec<u32>>,
    images: CaptionImages,
}

/// Evaluates a checkpoint on a split, and compares with what is published.
///
/// Everything that can be wrong with the input is looked for before the encoders start.
pub fn reproduce(request: &Request, progress: &dyn Progress) -> Result<Reproduction> {
    let Request { entry, engine, device, .. } = request;
    let mut stages = Vec::new();
    let mut notes = Vec::new();
    request.check(std::iter::empty())?;
    let paths = embedded::data_paths(entry, request.data.as_deref(), request.split.as_deref())?;
    let texts = read_texts(request, &paths)?;
    let protocols = protocols(request, &texts, &mut notes)?;
    let (checkpoint, checkpoint_used) = read_checkpoint(request, &mut stages, &mut notes)?;
    let seen = look_at_images(request, &texts.split, &paths, progress, &mut stages)?;
    notes.extend(seen.damaged.iter().map(|damage| {
        format!("image `{}` is damaged and was decoded as far as it goes: {}", damage.file.image.id, damage.warning)
    }));

    let (encoder, engine_used) = engine::open(*engine, *device, &entry.model, Rc::clone(&checkpoint))?;
    let captions = encode_captions(request, encoder.as_ref(), &texts.tokens, progress, &mut stages)?;
    let weights = AggregationWeights::load(|name| Ok(checkpoint.read(name)?))?;
    let options = EngineOptions { threads: request.threads, memory_limit: request.memory_limit };
    let sizes = AlignmentConfig::of(&entry.model);
    let similarity = SimilarityEngine::beside(*engine, *device, sizes, &weights, options)?;
    let similarities = score(request, encoder.as_ref(), &similarity, &captions, &texts, &paths, progress, &mut stages)?;

    let began = Instant::now();
    let scores = Scores::new(similarities.values(), texts.images.images(), texts.images.captions())?;
    let evaluations = protocols
        .iter()
        .map(|&protocol| Ok(evaluate(&scores, &texts.images, protocol)?))
        .collect::<Result<Vec<Evaluation>>>()?;
    stages.push(Stage::since("rank", texts.images.images() + texts.images.captions(), "queries", began));

    let (comparisons, verdict) = judge(request, &texts.split, &evaluations);
    Ok(Reproduction {
        schema: SCHEMA,
        entry: entry.name.clone(),
        split: texts.split.name().to_owned(),
        limit: request.limit.map(NonZeroUsize::get),
        images: texts.images.images(),
        captions: texts.images.captions(),
        evaluations,
        comparisons,
        verdict,
        notes,
        stages,
        peak_memory_bytes: peak_memory(),
        provenance: Provenance {
            version: env!("CARGO_PKG_VERSION"),
            commit: engine::commit(),
            config_sha256: entry.config_sha256.clone(),
            checkpoint: checkpoint_used,
            data: DataUsed {
                sha256: seen.sha256,
                image_bytes: seen.bytes,
                damaged: seen.damaged.iter().map(|damage| damage.file.image.id.clone()).collect(),
            },
            engine: engine_used,
            similarity: similarity.description(),
            machine: Machine::here(),
            seed: None,
        },
        similarities,
    })
}

fn read_texts(request: &Request, paths: &DataPaths) -> Result<Texts> {
    let Entry { model, data, .. } = &request.entry;
    let mut split = Split::open(&paths.captions, request.split.as_deref().unwrap_or(&data.test))?;
    if let Some(limit) = request.limit {
        split = split.limit(limit);
    }
    let tokenizer = Tokenizer::open(&paths.vocab)?;
    tokenizer.check_fits(model.text.vocab_size)?;
    let tokens = tokenizer.encode_all(split.captions(), model.text.max_position_embeddings)?;
    let images = CaptionImages::new(split.images().len(), split.image_of())?;
    Ok(Texts { split, tokens, images })
}

/// The protocols that the split can be evaluated by. One that does not fit is an error, unless the split was cut on
/// purpose and another one fits.
fn protocols(request: &Request, texts: &Texts, notes: &mut Vec<String>) -> Result<Vec<Protocol>> {
    let mut fitting = Vec::new();
    let mut refused = None;
    for &protocol in &request.entry.data.protocol {
        match protocol.fold_size(texts.images.images()) {
            Ok(_) => fitting.push(protocol),
            Err(error) if request.limit.is_some() => {
                notes.push(format!(
                    "protocol `{protocol}` was left out: {} images are no whole folds",
                    texts.images.images()
                ));
                refused = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match refused {
        Some(error) if fitting.is_empty() => Err(error.into()),
        _ => Ok(fitting),
    }
}

fn read_checkpoint(
    request: &Request,
    stages: &mut Vec<Stage>,
    notes: &mut Vec<String>,
) -> Result<(Rc<Checkpoint>, CheckpointUsed)> {
    let began = Instant::now();
    let entry = &request.entry;
    let (path, note) = match &request.checkpoint {
        Some(path) => (path.clone(), None),
        None => embedded::checkpoint(entry)?,
    };
    let checkpoint = Checkpoint::open(path)?;
    if let Some(options) = checkpoint.options() {
        options.check(&entry.model)?;
    }
    let parameters = laps::parameters(&entry.model)?;
    checkpoint.check(&parameters)?;
    notes.extend(note.clone());
    let used = CheckpointUsed::new(&checkpoint, note)?;
    stages.push(Stage::since("check checkpoint", parameters.len(), "tensors", began));
    Ok((Rc::new(checkpoint), used))
}

fn look_at_images(
    request: &Request,
    split: &Split,
    paths: &DataPaths,
    progress: &dyn Progress,
    stages: &mut Vec<Stage>,
) -> Result<Preflight> {
    let began = Instant::now();
    progress.begin("check images", split.images().len());
    let seen = preflight(split, &paths.images, request.threads, |_| progress.advance(1))?;
    stages.push(finish("check images", split.images().len(), "images", began.elapsed(), progress));
    Ok(seen)
}

/// Encodes captions of about the same length together, so that little is padded.
fn encode_captions(
    request: &Request,
    encoder: &dyn Encoder,
    tokens: &[Vec<u32>],
    progress: &dyn Progress,
    stages: &mut Vec<Stage>,
) -> Result<CaptionMatrix> {
    let began = Instant::now();
    progress.begin("encode captions", tokens.len());
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&index| tokens[index].len());
    let mut words: Vec<Option<Array>> = vec![None; tokens.len()];
    for batch in order.chunks(request.batch_size.get()) {
        let rows: Vec<&[u32]> = batch.iter().map(|&index| tokens[index].as_slice()).collect();
        for (&index, embeddings) in batch.iter().zip(encoder.encode_captions(&rows)?) {
            words[index] = Some(embeddings);
        }
        progress.advance(batch.len());
    }
    let mut captions = CaptionMatrix::new(request.entry.model.embed_size);
    for embeddings in words.into_iter().flatten() {
        captions.push(embeddings.dims(), embeddings.values())?;
    }
    stages.push(finish("encode captions", tokens.len(), "captions", began.elapsed(), progress));
    Ok(captions)
}

/// Encodes each image once, a block at a time, and scores the block against every caption, so that the embeddings of no
/// more than a block of images are held.
#[allow(clippy::too_many_arguments)] // the stages of one piece of work share all of these
fn score(
    request: &Request,
    encoder: &dyn Encoder,
    engine: &SimilarityEngine,
    captions: &CaptionMatrix,
    texts: &Texts,
    paths: &DataPaths,
    progress: &dyn Progress,
    stages: &mut Vec<Stage>,
) -> Result<Array> {
    let files = texts.split.image_files(&paths.images);
    let images = files.len();
    let preprocessing = Preprocessing::imagenet(request.entry.model.image.image_size());
    let options = LoaderOptions { batch: request.batch_size.get(), threads: request.threads, ahead: AHEAD };
    let mut loader = Loader::start(files, preprocessing, options)?;
    let mut similarities = Vec::with_capacity(images * captions.len());
    let [mut encoding, mut scoring] = [Duration::ZERO; 2];
    let mut block = Vec::new();
    let mut held = 0;
    progress.begin("encode and score images", images);
    for batch in loader.by_ref() {
        let batch = batch?;
        let count = batch.pixels.dims()[0];
        let began = Instant::now();
        let tokens = encoder.encode_images(&batch.pixels)?;
        encoding += began.elapsed();
        let [_, length, width] = *tokens.dims() else { continue };
        block.extend_from_slice(tokens.values());
        held += count;
        if held >= BLOCK || batch.first + count == images {
            let began = Instant::now();
            let embeddings = Array::new(&[held, length, width], std::mem::take(&mut block))?;
            similarities.extend_from_slice(engine.similarities(&embeddings, captions)?.values());
            scoring += began.elapsed();
            held = 0;
        }
        progress.advance(count);
    }
    let waiting = loader.stats().waiting;
    progress.end(&format!("{images} images against {} captions", captions.len()));
    stages.push(Stage::new("wait for images", images, "images", waiting));
    stages.push(Stage::new("encode images", images, "images", encoding));
    stages.push(Stage::new("score", images * captions.len(), "pairs", scoring));
    Ok(Array::new(&[images, captions.len()], similarities)?)
}

fn finish(name: &'static str, items: usize, unit: &'static str, time: Duration, progress: &dyn Progress) -> Stage {
    let stage = Stage::new(name, items, unit, time);
    progress.end(&format!("{items} {unit} in {:.2} s, {:.1} a second", stage.seconds, stage.rate()));
    stage
}

/// Published tables are of a whole test split, those of `references.yaml` of one of a certain size.
fn judge(request: &Request, split: &Split, evaluations: &[Evaluation]) -> (Vec<Comparison>, Verdict) {
    let entry = &request.entry;
    let nothing = |reason: String| (Vec::new(), Verdict::NotCompared { reason });
    if entry.data.protocol.iter().all(|&protocol| entry.published(protocol).is_empty()) {
        return nothing(compare::NO_PUBLISHED.to_owned());
    }
    if request.limit.is_some() {
        return nothing("published recalls are of the whole split".to_owned());
    }
    if split.name() != entry.data.test {
        return nothing(format!("published recalls are of the split `{}`", entry.data.test));
    }
    let mut comparisons = Vec::new();
    let mut sizes = Vec::new();
    for evaluation in evaluations {
        for table in entry.published(evaluation.protocol) {
            if table.is_built_in() && !evaluation.published_size {
                let (images, captions) = evaluation.protocol.published_size();
                sizes.push(format!("`{}` is of {images} images and {captions} captions", table.source));
            } else {
                comparisons.push(Comparison::new(evaluation, &table));
            }
        }
    }
    if comparisons.is_empty() && !sizes.is_empty() {
        return nothing(format!("the published sizes differ: {}", sizes.join(", ")));
    }
    let verdict = compare::decide(&mut comparisons, request.tolerance);
    (comparisons, verdict)
}

impl Error {
    /// An entry that has no checkpoint to offer.
    pub(crate) fn no_checkpoint(entry: &Entry) -> Self {
        let hint = match entry.checkpoint_source() {
            Ok(Some(source)) => match source.url() {
                Some(url) => format!("download `{}` from {url} and pass its path", source.file),
                None => format!("pass the path of `{}`", source.file),
            },
            _ => "this entry has no published checkpoint: pass the path of your own".to_owned(),
        };
        Self::NoCheckpoint { entry: entry.name.clone(), hint }
    }
}
